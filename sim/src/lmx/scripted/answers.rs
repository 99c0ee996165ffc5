//! What these clients make of the lines they are told, and what those must be.

use serde_json::{Value, json};

use super::{Asked, Script, key_text};
use crate::lmx::Question;
use crate::lmx::driver::Driver;
use crate::marks::sometimes;
use crate::oracle::Property;
use crate::plan::fault::NodeId;
use crate::trace::Kind;

impl Driver<'_> {
    pub(in crate::lmx) fn scripted_line(&mut self, node: NodeId, line: &[u8]) {
        let reply = serde_json::from_slice::<Value>(line);
        let Some(reply) = reply.ok().filter(Value::is_object) else {
            let detail = format!("a line is no object: {}", String::from_utf8_lossy(line));
            self.engine.violate(Property::Answer, detail);
            return;
        };
        self.engine.note(node, Kind::Told, || reply.to_string());
        // Its connection is given up, which it will find out in its own time.
        if reply["fault"].is_string() {
            return;
        }
        let uuid = reply["uuid"].as_str().unwrap_or_default();
        if let Some(error) = reply["error"].as_str() {
            // What it has given up by now may have been refused meanwhile.
            if uuid.is_empty() || self.awaits(node, uuid) {
                self.scripted_refused(node, error);
            }
            return;
        }
        if self.is_question_answered(node, uuid, &reply) {
            return;
        }
        let granted = reply["acquired"] == true;
        let Some(scripted) = self.scripted(node) else {
            return;
        };
        if granted && scripted.told.iter().any(|told| told == uuid) {
            let detail = format!(
                "client {}: {uuid} is told twice that it is granted",
                node - 1
            );
            self.engine.violate(Property::Answer, detail);
            return;
        }
        let is_awaited = scripted.current.as_ref().and_then(|it| it.asked.as_ref());
        let Some(asked) = is_awaited.filter(|asked| asked.uuid == uuid).cloned() else {
            self.answered_unasked(node, &reply);
            return;
        };
        if granted {
            scripted.told.push(uuid.to_owned());
        }
        match asked.kind() {
            "lock" => self.lock_answered(node, &asked, &reply),
            "acquire-many" => self.composite_answered(node, &asked, &reply),
            _ if reply["type"] == "register-write-flag-check-queued" => {
                sometimes!(self.engine.marks, ReaderQueued);
            }
            _ => self.message_answered(node, &asked, &reply),
        }
        self.go_on(node);
    }

    fn awaits(&mut self, node: NodeId, uuid: &str) -> bool {
        let current = self.scripted(node).and_then(|it| it.current.as_ref());
        current.is_some_and(|it| it.asked.as_ref().is_some_and(|asked| asked.uuid == uuid))
    }

    /// It hears of what it no longer waits for.
    fn answered_unasked(&mut self, node: NodeId, reply: &Value) {
        let script = self.script(node);
        // A Node client says that nobody is there for a grant.
        if reply["acquired"] == true && reply["type"] == "lock" && script != Script::Composite {
            sometimes!(self.engine.marks, DialectRejected);
            let frame = json!({
                "type": "lock-received-rejected", "uuid": reply["uuid"], "key": reply["key"],
            });
            if let Some(scripted) = self.scripted(node) {
                scripted.say(&frame);
            }
        }
    }

    /// It was refused: only for want of room, or for what was done by force.
    fn scripted_refused(&mut self, node: NodeId, error: &str) {
        let has_readers = self.script(node).has_readers();
        let op = self
            .scripted(node)
            .and_then(|it| Some(it.current.as_ref()?.op));
        // Whose time was up before it could be told is told that, too.
        let is_leased =
            op.is_some_and(|op| self.engine.lock(self.engine.tickets[op as usize]).lease_ns > 0);
        if self.setup.has_room() && has_readers && !is_leased {
            let detail = format!("client {} is refused: {error}", node - 1);
            self.engine.violate(Property::Answer, detail);
            return;
        }
        self.leave_as_a_whole(node);
        self.go_on(node);
    }

    fn lock_answered(&mut self, node: NodeId, asked: &Asked, reply: &Value) {
        if reply["key"] != asked.frame["key"] || reply["type"] != "lock" {
            let detail = format!("client {}: {reply} answers {}", node - 1, asked.frame);
            self.engine.violate(Property::Answer, detail);
            return;
        }
        if reply["acquired"] != true {
            return;
        }
        let is_write_key = asked.frame["rwStatus"] == "locking_write_key";
        let round = self.round(node);
        round.asked = None;
        if !is_write_key {
            round.base = Some(asked.uuid.clone());
            round.readers = reply["readersCount"].as_u64().unwrap_or(0);
        }
        round.token = reply["fencingToken"].as_u64();
        let received = json!({
            "type": "lock-received", "uuid": asked.uuid, "key": asked.frame["key"],
        });
        if let Some(scripted) = self.scripted(node) {
            scripted.say(&received);
        }
    }

    /// All of its keys, or none.
    fn composite_answered(&mut self, node: NodeId, asked: &Asked, reply: &Value) {
        let mut keys: Vec<&Value> = asked.frame["keys"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        keys.sort_by_key(|key| key.as_str());
        let same_keys = reply["keys"]
            .as_array()
            .is_some_and(|told| told.iter().eq(keys.iter().copied()));
        let tokens = &reply["fencingTokens"];
        let granted = reply["acquired"] == true;
        let all_granted = keys.iter().all(|key| {
            key.as_str()
                .is_some_and(|key| tokens[key].as_u64().is_some())
        });
        if !same_keys || granted != all_granted {
            let detail = format!("client {}: {reply} answers {}", node - 1, asked.frame);
            self.engine.violate(Property::Answer, detail);
            return;
        }
        let first = keys
            .first()
            .and_then(|key| key.as_str())
            .unwrap_or_default();
        let token = tokens[first].as_u64();
        let round = self.round(node);
        if granted {
            round.asked = None;
            round.base = reply["lockUuid"].as_str().map(str::to_owned);
            round.token = token;
            sometimes!(self.engine.marks, CompositeGranted);
        } else {
            sometimes!(self.engine.marks, CompositeQueued);
        }
    }

    fn message_answered(&mut self, node: NodeId, asked: &Asked, reply: &Value) {
        let expected: &[&str] = match asked.kind() {
            "unlock" => &["unlock"],
            "release-many" => &["release-many"],
            "register-write-flag-check" => &["register-write-flag-success"],
            "register-write-flag-and-readers-check" => {
                &["register-write-flag-and-readers-check-success"]
            }
            "increment-readers" => &["increment-readers-success"],
            "decrement-readers" => &["decrement-readers-success"],
            "set-write-flag-false-and-broadcast" => &["write-flag-false-and-broadcast-success"],
            _ => &[],
        };
        let kind = reply["type"].as_str().unwrap_or_default();
        // What it did under its own id it undoes once.
        let undone = match asked.kind() {
            "unlock" => reply["unlocked"] == true,
            "release-many" => reply["released"] == true,
            _ => true,
        };
        if !expected.contains(&kind) || !undone {
            let detail = format!("client {}: {reply} answers {}", node - 1, asked.frame);
            self.engine.violate(Property::Answer, detail);
            return;
        }
        let script = self.script(node);
        self.round(node).asked = None;
        if script == Script::Oldest
            && let Some(scripted) = self.scripted(node)
        {
            let frame = json!({
                "type": "unlock-received", "uuid": asked.uuid, "key": asked.frame["key"], "pid": 7,
            });
            scripted.say(&frame);
        }
    }

    /// Whether it is the answer to a question, which then is judged.
    fn is_question_answered(&mut self, node: NodeId, uuid: &str, reply: &Value) -> bool {
        let Some(scripted) = self.scripted(node) else {
            return false;
        };
        let Some(place) = scripted.questions.iter().position(|it| it.0 == uuid) else {
            return false;
        };
        let (_, question) = scripted.questions.swap_remove(place);
        sometimes!(self.engine.marks, DialectQuestion);
        let is_right = match question {
            Question::List => reply["ls_result"].is_array(),
            Question::Inspect(key) | Question::Readers(key) => {
                reply["lockInfo"] == true
                    && reply["key"] == key_text(key)
                    && reply["isLocked"].is_boolean()
                    && reply["lockholderUUIDs"].is_array()
            }
            Question::Status => {
                reply["type"] == "system-stats-response" && reply["stats"].is_object()
            }
            Question::Ping => {
                reply["type"] == "pong" && reply["ping"] == true && reply["timestamp"] == 17
            }
        };
        if !is_right {
            let detail = format!("client {}: {reply} answers {question:?}", node - 1);
            self.engine.violate(Property::Answer, detail);
        }
        self.close_down_if_idle();
        true
    }
}
