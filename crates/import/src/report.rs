//! What came of each object: for programs as JSON, for people as a summary. It holds no key, and nothing that a key could be found out from.

use serde::Serialize;
use std::fmt::Write as _;

/// The version of the report's form.
pub const VERSION: u32 = 1;
/// The longest text of a server that is taken over, in bytes.
const LONGEST: usize = 256;
/// How many objects the summary names; the report has all.
const NAMED: usize = 20;

/// A run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// Where the objects came from.
    pub source: Server,
    /// Where they went.
    pub destination: Server,
    /// Whether all objects of the list were looked at.
    pub complete: bool,
    /// What ended the run before that.
    pub error: Option<String>,
    /// How many objects the source has listed; `null` where it did not come to that.
    pub found: Option<usize>,
    /// All that were looked at, in the order of the source.
    pub objects: Vec<Entry>,
}

/// A server.
#[derive(Debug, Serialize)]
pub struct Server {
    /// host:port.
    pub address: String,
    /// Of the source: what it is called in the marks of the objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The version of KMIP that was spoken; `null` where it did not come to that.
    pub protocol_version: Option<String>,
}

impl Server {
    pub(crate) fn at(address: &str) -> Self {
        Self { address: address.to_owned(), name: None, protocol_version: None }
    }
}

/// An object.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its identifier at the source.
    pub source_id: String,
    /// The identifier that it has here, or would have.
    pub destination_id: String,
    /// Its type, as the specification calls it; `null` where the source does not say.
    pub object_type: Option<String>,
    /// Its names, each cut to 256 bytes, at most 32.
    pub names: Vec<String>,
    /// Its state at the source; `null` for one that has none.
    pub state: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was not moved.
    pub reason: Option<Reason>,
    /// What was not carried over with it.
    pub notes: Vec<Note>,
}

/// What came of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was made here, read back, and is the same.
    Moved,
    /// It was here before, was read, and is the same.
    AlreadyThere,
    /// It would be moved, if this were no dry run.
    WouldMove,
    /// It is not here.
    NotMoved,
}

/// Why an object was not moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Who says so.
    pub at: At,
    /// A KMIP Result Reason by its name, or a word of the import's own.
    pub code: String,
    /// In words.
    pub message: String,
    /// What to do.
    pub advice: String,
}

/// Who says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// The server that the object is at.
    Source,
    /// Keystead.
    Destination,
    /// The import itself.
    Import,
}

/// Something that was not carried over with an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The attribute; `null` where it is about the object.
    pub attribute: Option<String>,
    /// Why.
    pub message: String,
}

impl Report {
    /// How many objects had an outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.objects.iter().filter(|entry| entry.outcome == outcome).count()
    }

    /// The report as JSON, with the counts.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let Some(object) = json.as_object_mut() {
            let totals = serde_json::json!({
                "moved": self.count(Outcome::Moved), "already_there": self.count(Outcome::AlreadyThere), "would_move": self.count(Outcome::WouldMove),
                "not_moved": self.count(Outcome::NotMoved), "not_reached": self.found.unwrap_or(0).saturating_sub(self.objects.len()),
            });
            object.insert("totals".to_owned(), totals);
        }
        format!("{json:#}\n")
    }

    /// How far it is, in a line.
    pub fn progress(&self) -> String {
        let counts =
            [(Outcome::Moved, "moved"), (Outcome::WouldMove, "would be moved"), (Outcome::AlreadyThere, "already there"), (Outcome::NotMoved, "not moved")];
        let said = counts.map(|(outcome, words)| (self.count(outcome), words)).into_iter().filter(|(count, _)| *count > 0);
        let said = said.map(|(count, words)| format!("{count} {words}")).collect::<Vec<_>>().join(", ");
        let found = self.found.map_or_else(|| "?".to_owned(), |found| found.to_string());
        format!("{} of {found}{}{said}", self.objects.len(), if said.is_empty() { "" } else { ": " })
    }

    /// The report for people. What comes from servers is escaped: it goes to a terminal.
    pub fn summary(&self) -> String {
        let mut text = format!("{}\n", self.progress());
        let (mut left, notes) = (0, self.objects.iter().filter(|entry| !entry.notes.is_empty()).count());
        for entry in self.objects.iter().filter(|entry| entry.outcome == Outcome::NotMoved) {
            left += 1;
            let Some(reason) = entry.reason.as_ref().filter(|_| left <= NAMED) else { continue };
            let name = entry.names.first().map(|name| format!(" {:?}", name)).unwrap_or_default();
            let kind = entry.object_type.as_deref().unwrap_or("object").escape_debug();
            let (id, message) = (entry.source_id.escape_debug(), reason.message.escape_debug());
            let _ = writeln!(text, "not moved: {kind} {id}{name}: {} ({}); {}", message, reason.code, reason.advice);
        }
        if left > NAMED {
            let _ = writeln!(text, "and {} more that were not moved; the report (--report) has all", left - NAMED);
        }
        if notes > 0 {
            let _ = writeln!(text, "of {notes} objects something was not carried over; the report (--report) says what");
        }
        text
    }
}

impl Reason {
    /// A reason of the import's own.
    pub(crate) fn own(code: &str, message: impl Into<String>, advice: &str) -> Self {
        Self { at: At::Import, code: code.to_owned(), message: message.into(), advice: advice.to_owned() }
    }
}

/// A text of a server, cut.
pub(crate) fn short(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let entry = |id: &str, outcome, reason| Entry {
            source_id: id.to_owned(),
            destination_id: "d".to_owned(),
            object_type: Some("SymmetricKey".to_owned()),
            names: vec!["volume \u{1b}[2J".to_owned()],
            state: None,
            outcome,
            reason,
            notes: vec![Note { attribute: Some("x".to_owned()), message: "y".to_owned() }],
        };
        let reason = Reason::own("Destroyed", "it is \u{1b}[2J destroyed", "nothing");
        let mut objects = vec![entry("1", Outcome::Moved, None)];
        objects.extend((0..30).map(|n| entry(&n.to_string(), Outcome::NotMoved, Some(reason.clone()))));
        Report {
            version: VERSION,
            dry_run: false,
            source: Server { name: Some("s".to_owned()), ..Server::at("a:1") },
            destination: Server::at("b:2"),
            complete: false,
            error: Some("gone".to_owned()),
            found: Some(40),
            objects,
        }
    }

    #[test]
    fn for_programs() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        assert_eq!(json["totals"], serde_json::json!({ "moved": 1, "already_there": 0, "would_move": 0, "not_moved": 30, "not_reached": 9 }));
        assert_eq!((&json["objects"][0]["outcome"], &json["objects"][0]["reason"]), (&"moved".into(), &serde_json::Value::Null));
        assert_eq!((&json["objects"][1]["reason"]["at"], &json["source"]["name"]), (&"import".into(), &"s".into()));
    }

    #[test]
    fn for_people() {
        let text = report().summary();
        assert!(text.starts_with("31 of 40: 1 moved, 30 not moved\n"), "{text}");
        assert!(text.contains("and 10 more") && text.contains("of 31 objects"), "{text}");
        assert!(!text.contains('\u{1b}'), "what servers say does not steer the terminal");
        assert_eq!(short(&"ü".repeat(300)).len(), LONGEST);
    }
}
