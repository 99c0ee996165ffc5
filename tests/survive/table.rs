//! The table of faults in `docs/ARCHITECTURE.md`, against the tests it names.

#[test]
fn every_fault_in_the_table_has_its_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let document =
        std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).expect("the document");
    let (_, section) = document.split_once("\n### Faults\n").expect("the section");
    let section = section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section);
    let mut rows = 0;
    for row in section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
    {
        let shown_by = row.split('|').nth(3).expect("three columns").trim();
        let (file, test) = shown_by
            .trim_matches('`')
            .split_once("::")
            .unwrap_or_else(|| panic!("no test in {row}"));
        let source = std::fs::read_to_string(root.join(file))
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(&format!("fn {test}()")), "{shown_by}");
        rows += 1;
    }
    assert!(rows > 20, "{rows} rows");
}
