//! The state file on real directories, and on a disk that dies at every step.

use std::collections::BTreeMap;
use std::time::Duration;

use lmx_core::broker::KeptHold;
use lmx_core::{FencingToken, Mode, RequestId};

use super::*;

fn record(incarnation: u64) -> Record {
    Record {
        incarnation,
        token_ceiling: FencingToken::new(incarnation * 1000).unwrap(),
        secret_seed: [7; 16],
        reach: Duration::from_secs(10),
        has_unlisted: false,
        sessions: Vec::new(),
        holds: Vec::new(),
    }
}

const NAME: StateName = StateName::Port(6970);

#[test]
fn the_default_directory_is_the_systems() {
    let with = |set: &[(&str, &str)]| {
        default_directory(|name| {
            let (_, value) = set.iter().find(|(known, _)| *known == name)?;
            Some(value.into())
        })
    };
    let home = ("HOME", "/h");
    let xdg = ("XDG_STATE_HOME", "/x");
    let systemd = |value| ("STATE_DIRECTORY", value);
    for (set, expected) in [
        (&[][..], None),
        (&[home], Some("/h/.local/state/lmx")),
        (&[home, xdg], Some("/x/lmx")),
        (&[home, xdg, systemd("/s")], Some("/s")),
        (&[home, xdg, systemd("/s:/t")], Some("/s")),
        (&[home, xdg, systemd("relative")], Some("/x/lmx")),
    ] {
        assert_eq!(with(set), expected.map(PathBuf::from), "{set:?}");
    }
}

#[test]
fn a_record_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("made/on/demand");
    let (mut file, before) = StateFile::open(&place, &NAME).unwrap();
    assert_eq!(before, None);
    file.save(&record(1)).unwrap();
    file.save(&record(2)).unwrap();
    drop(file);
    let (_, before) = StateFile::open(&place, &NAME).unwrap();
    assert_eq!(before, Some(record(2)));
}

#[test]
fn every_directory_that_was_made_is_made_to_last() {
    let directory = tempfile::tempdir().unwrap();
    let all = ["a", "a/b", "a/b/c"].map(|name| directory.path().join(name));
    let mut synced = Vec::new();
    let mut make = |path: &Path| {
        make_directory(path, |it| {
            assert!(it.is_dir());
            synced.push(it.to_owned());
            Ok(())
        })
    };
    make(&all[0]).unwrap();
    make(&all[2]).unwrap();
    make(&all[2]).unwrap();
    synced.sort();
    assert_eq!(synced, all);
}

#[test]
fn a_second_broker_on_the_same_state_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = StateFile::open(directory.path(), &NAME).unwrap();
    let error = StateFile::open(directory.path(), &NAME).unwrap_err();
    assert!(matches!(error, StateError::InUse { .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("--state-dir"), "{words}");
    StateFile::open(directory.path(), &StateName::Port(6971)).unwrap();
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut file, _) = StateFile::open(directory.path(), &NAME).unwrap();
    file.save(&record(1)).unwrap();
    let path = file.path.clone();
    drop(file);
    let whole = fs::read(&path).unwrap();
    for damaged in [
        &whole[..whole.len() - 1],
        &whole[..3],
        b"something else",
        b"",
    ] {
        fs::write(&path, damaged).unwrap();
        let error = StateFile::open(directory.path(), &NAME).unwrap_err();
        assert!(matches!(error, StateError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()));
        // Nothing was repaired behind the operator's back.
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
}

fn long_record() -> Record {
    let hold = KeptHold {
        id: RequestId::from_u128(1),
        token: FencingToken::new(1).unwrap(),
        lease: None,
        keys: vec![(vec![b'k'; 1000], Mode::Exclusive)],
        label: Vec::new(),
        lock_delay: Duration::ZERO,
    };
    let holds = vec![hold; 100];
    Record { holds, ..record(1) }
}

#[test]
fn a_record_of_any_length_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (mut file, _) = StateFile::open(directory.path(), &NAME).unwrap();
    file.save(&long_record()).unwrap();
    drop(file);
    let (_, before) = StateFile::open(directory.path(), &NAME).unwrap();
    assert_eq!(before, Some(long_record()));
}

#[test]
fn of_what_is_no_record_only_the_beginning_is_read() {
    // More than any memory, but no disk is taken.
    const BYTES: u64 = 1 << 42;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(NAME.file_name());
    for (beginning, words) in [
        (b"something else".to_vec(), "not a state file"),
        (record(1).encode(), "has 4398046511104 bytes"),
        (long_record().encode(), "has 4398046511104 bytes"),
    ] {
        fs::write(&path, beginning).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(BYTES).unwrap();
        let error = StateFile::open(directory.path(), &NAME).unwrap_err();
        assert!(matches!(error, StateError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = StateFile::open(directory.path(), &NAME).unwrap_err();
    assert!(error.to_string().contains("no regular file"), "{error}");
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("file");
    fs::write(&blocked, "").unwrap();
    let error = StateFile::open(&blocked, &NAME).unwrap_err();
    assert!(matches!(error, StateError::Unwritable { .. }), "{error}");
}

#[test]
fn only_the_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let (mut file, _) = StateFile::open(directory.path(), &NAME).unwrap();
    file.save(&record(1)).unwrap();
    let mode = fs::metadata(&file.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn no_two_names_share_a_file() {
    let long = "x".repeat(300);
    let names: Vec<String> = [
        StateName::Port(6970),
        StateName::Port(697),
        StateName::Unix("/run/a".into()),
        StateName::Unix("/run-a".into()),
        StateName::Unix(format!("/{long}/a").into()),
        StateName::Unix(format!("/{long}/b").into()),
    ]
    .iter()
    .map(StateName::file_name)
    .collect();
    for (position, name) in names.iter().enumerate() {
        assert!(!names[..position].contains(name), "{name}");
        assert!(name.len() < 200 && !name.contains('/'), "{name}");
    }
}

/// Names of before addresses were left out of them.
const OLDER: [&str; 2] = ["tcp-127.0.0.1-6970.state", "tcp-__1-6970.state"];

#[test]
fn a_state_under_its_older_name_is_taken_up() {
    for older in OLDER {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        // What is not this broker's is left alone.
        let others = ["tcp-127.0.0.1-16970.state", "tcp-x-6970.state"];
        for other in others {
            fs::write(directory.join(other), "").unwrap();
        }
        fs::write(directory.join(older), record(3).encode()).unwrap();
        let (file, before) = StateFile::open(directory, &NAME).unwrap();
        assert_eq!(before, Some(record(3)));
        drop(file);
        let mut left: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [others[0], "tcp-6970.state", others[1]]);
    }
}

#[test]
fn a_state_under_its_older_name_is_not_taken_from_its_broker() {
    let directory = tempfile::tempdir().unwrap();
    let older = directory.path().join(OLDER[0]);
    fs::write(&older, record(3).encode()).unwrap();
    let _its = PathLock::claim(&older.with_extension("lock")).unwrap();
    let error = StateFile::open(directory.path(), &NAME).unwrap_err();
    assert!(
        matches!(&error, StateError::InUse { path } if *path == older),
        "{error}"
    );
}

#[test]
fn of_several_states_none_is_chosen() {
    for names in [&OLDER[..], &[OLDER[0], "tcp-6970.state"]] {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(directory.path().join(name), record(3).encode()).unwrap();
        }
        let error = StateFile::open(directory.path(), &NAME).unwrap_err();
        let words = error.to_string();
        assert!(matches!(error, StateError::Ambiguous { .. }), "{words}");
        assert!(names.iter().all(|name| words.contains(name)), "{words}");
        assert!(
            names
                .iter()
                .all(|name| directory.path().join(name).exists())
        );
    }
}

/// A disk in memory that has the power cut after some number of steps, and then has
/// lost, of what was not synced, as much as it can.
#[derive(Clone, Debug, Default)]
struct DyingDisk {
    /// What is seen while the power is on.
    names: BTreeMap<PathBuf, usize>,
    /// What is there after a cut.
    synced_names: BTreeMap<PathBuf, usize>,
    files: Vec<Content>,
    steps_left: usize,
    /// Names may also reach the disk without having been synced.
    writes_names_early: bool,
    /// So may a part of a file, in hundredths.
    written_early_percent: usize,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

impl DyingDisk {
    fn step(&mut self) -> io::Result<()> {
        self.steps_left = self
            .steps_left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("the power is cut"))?;
        Ok(())
    }

    /// What the next power-on finds.
    fn after_power_cut(mut self) -> Self {
        if self.writes_names_early {
            self.synced_names = self.names.clone();
        }
        self.names = self.synced_names.clone();
        for file in &mut self.files {
            if file.bytes != file.synced {
                let early = file.bytes.len() * self.written_early_percent / 100;
                file.bytes.truncate(early);
            }
            file.synced = file.bytes.clone();
        }
        self.steps_left = usize::MAX;
        self
    }
}

impl Disk for DyingDisk {
    type File = usize;

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let bytes = &self.files[*file].bytes;
        Ok(bytes[..bytes.len().min(bytes_max as usize)].to_vec())
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        let file = self.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.files[*file].bytes.len() as u64)
    }

    fn create(&mut self, path: &Path) -> io::Result<usize> {
        self.step()?;
        if let Some(&file) = self.names.get(path) {
            self.files[file].bytes.clear();
            return Ok(file);
        }
        self.files.push(Content::default());
        self.names.insert(path.to_owned(), self.files.len() - 1);
        Ok(self.files.len() - 1)
    }

    fn write(&mut self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        // Two steps, for a power cut in the middle.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for part in [first, second] {
            self.step()?;
            self.files[*file].bytes.extend_from_slice(part);
        }
        Ok(())
    }

    fn sync(&mut self, file: &mut usize) -> io::Result<()> {
        self.step()?;
        let content = &mut self.files[*file];
        content.synced = content.bytes.clone();
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let file = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_directory_of(&mut self, _: &Path) -> io::Result<()> {
        self.step()?;
        self.synced_names = self.names.clone();
        Ok(())
    }
}

#[test]
fn whenever_the_power_is_cut_the_old_or_the_new_record_is_there() {
    const STEPS: usize = 6;
    let mut outcomes = [0; 2];
    for first_cut in 0..=STEPS {
        for second_cut in 0..=STEPS {
            for writes_names_early in [false, true] {
                for written_early_percent in [0, 50, 100] {
                    let mut file = StateFile {
                        disk: DyingDisk {
                            steps_left: usize::MAX,
                            writes_names_early,
                            written_early_percent,
                            ..DyingDisk::default()
                        },
                        path: PathBuf::from("/state/file"),
                        _lock: None,
                    };
                    file.save(&record(1)).unwrap();
                    let mut durable = 1;
                    // Twice, for the second life finds what the first left lying about.
                    for (incarnation, cut) in [(2, first_cut), (3, second_cut)] {
                        file.disk.steps_left = cut;
                        let saved = file.save(&record(incarnation)).is_ok();
                        assert_eq!(saved, cut == STEPS);
                        file.disk = file.disk.clone().after_power_cut();
                        let found = file.load().unwrap().unwrap();
                        let is_new = found == record(incarnation);
                        assert!(is_new || (!saved && found == record(durable)));
                        outcomes[usize::from(is_new)] += 1;
                        durable = found.incarnation;
                    }
                }
            }
        }
    }
    assert!(outcomes.iter().all(|&count| count > 0), "{outcomes:?}");
}
