//! What `docs/errors.md` says: every code is in it, as it is answered, and every test that it names raises the code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use keystead_manager::Code;
use std::path::PathBuf;

/// A row of one of the tables.
struct Row {
    code: String,
    status: String,
    meaning: String,
    /// Tests, or why there is none.
    raised_by: String,
}

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rows() -> Vec<Row> {
    let text = read("docs/errors.md");
    let rows = text.lines().filter(|line| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [code, status, meaning, _, raised_by] = cells[..] else { panic!("not five cells: {line}") };
        Row { code: code.to_owned(), status: status.to_owned(), meaning: meaning.to_owned(), raised_by: raised_by.to_owned() }
    })
    .collect()
}

/// The text of a test, from its attributes to its end. `None`: there is no such function, or it is no test.
fn test_of<'s>(source: &'s str, name: &str) -> Option<&'s str> {
    let at = source.find(&format!("fn {name}("))?;
    let start = source[..at].rfind('\n').map_or(0, |end| end + 1);
    let indent = source[start..at].len() - source[start..at].trim_start().len();
    let attribute = source[..start].trim_end().lines().last()?;
    let end = start + source[start..].find(&format!("\n{}}}", " ".repeat(indent)))?;
    (attribute.trim_start().starts_with("#[") && attribute.contains("test")).then_some(&source[start..end])
}

#[test]
fn every_code_has_one_row_with_its_status_and_its_meaning() {
    let rows = rows();
    for code in Code::ALL {
        let of_code: Vec<&Row> = rows.iter().filter(|row| row.code == code.to_string()).collect();
        let [row] = of_code[..] else { panic!("{code} ({code:?}) has {} rows in docs/errors.md, and needs one", of_code.len()) };
        assert_eq!(row.status, keystead_rest::status(*code).as_str(), "the HTTP status of {code}");
        assert_eq!(row.meaning, code.text(), "the meaning of {code}");
    }
    assert_eq!(rows.len(), Code::ALL.len(), "there is a row of a code that there is not");
}

#[test]
fn the_manual_says_what_to_do_about_every_code() {
    let text = read("docs/manual/errors.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for code in Code::ALL {
        let of_code: Vec<_> = rows.iter().filter(|row| row[0] == code.to_string()).collect();
        let [row] = of_code[..] else { panic!("{code} ({code:?}) has {} rows in docs/manual/errors.md, and needs one", of_code.len()) };
        let [_, meaning, caller, operator] = row[..] else { panic!("not four cells: {row:?}") };
        assert_eq!(meaning, code.text(), "the meaning of {code}");
        assert!(!caller.is_empty() && !operator.is_empty() && (caller, operator) != ("nothing", "nothing"), "nobody does anything about {code}");
    }
    assert_eq!(rows.len(), Code::ALL.len(), "there is a row of a code that there is not");
}

#[test]
fn every_test_that_is_named_is_there_and_speaks_of_the_code() {
    for row in rows() {
        let (mut file, mut named) = (String::new(), 0);
        for name in row.raised_by.split('`').skip(1).step_by(2) {
            if name.contains('/') {
                file = read(name);
                continue;
            }
            let test = test_of(&file, name).unwrap_or_else(|| panic!("{}: there is no test {name} in the file named before it", row.code));
            assert!(test.contains(&format!("\"{}\"", row.code)), "{}: {name} does not speak of it", row.code);
            named += 1;
        }
        assert!(named > 0 || row.raised_by.starts_with("not raised"), "{}: neither a test nor \"not raised\"", row.code);
    }
}

#[test]
fn a_function_is_found_with_its_end_and_only_where_it_is_a_test() {
    let source =
        "fn helper() {\n    \"1\"\n}\n\n#[test]\nfn one() {\n    \"2\"\n}\n\nmod inner {\n    #[tokio::test]\n    async fn two() {\n        \"3\"\n    }\n}\n";
    assert!(test_of(source, "helper").is_none() && test_of(source, "three").is_none());
    assert!(test_of(source, "one").is_some_and(|test| test.contains("\"2\"") && !test.contains("\"3\"")));
    assert!(test_of(source, "two").is_some_and(|test| test.contains("\"3\"")));
}
