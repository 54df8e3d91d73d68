//! For people: tables of many records, and lists of the fields of one. What a name holds is written so that it cannot steer the terminal.

use crate::failure::Failure;
use serde_json::Value;
use std::io::{ErrorKind, Write as _};

/// Writes to standard output. A reader who has gone away is no failure of the command.
///
/// # Errors
/// 1 it cannot be written, as on a disk that is full: a script would take what is missing for what there is not.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(format!("the outcome cannot be written: {error}"))),
        _ => Ok(()),
    }
}

/// A text without characters that a terminal obeys.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A field of a record by its path (`svm.name`), as it is shown; `-` where it is not there.
pub fn cell(record: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(record, |at, name| at.get(name));
    match found {
        None | Some(Value::Null) => "-".to_owned(),
        Some(value) => shown(value),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => plain(text),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => plain(&other.to_string()),
    }
}

/// A table of the records of a collection, with how many there are. Columns: title and path.
pub fn of_records(collection: &Value, columns: &[(&str, &str)]) -> String {
    let records = collection.get("records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows = records.iter().map(|record| columns.iter().map(|(_, path)| cell(record, path)).collect());
    let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let count = match records.len() {
        0 => return "There are none.\n".to_owned(),
        1 => "1 entry.\n".to_owned(),
        many => format!("{many} entries.\n"),
    };
    rows_of(&titles, rows.collect()) + &count
}

/// A table.
pub fn rows_of(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let width =
        |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).chain(titles.get(n).map(|title| title.chars().count())).max();
    let widths: Vec<usize> = (0..titles.len()).map(|n| width(n).unwrap_or_default()).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(&mut titles.iter().copied()) + &line(&mut rule.iter().map(String::as_str));
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// The fields of one record, one a line: title and value.
pub fn of_fields(fields: &[(String, String)]) -> String {
    let width = fields.iter().map(|(title, _)| title.chars().count()).max().unwrap_or_default();
    fields.iter().map(|(title, value)| format!("{title:>width$}: {value}\n")).collect()
}

/// The same of a record, by titles and paths.
pub fn of_record(record: &Value, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(title, path)| ((*title).to_owned(), cell(record, path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let all = json!({ "records": [{ "name": "a", "svm": { "name": "svm1" } }, { "name": "bcdefgh", "svm": null }] });
        let text = of_records(&all, &[("Name", "name"), ("Vserver", "svm.name")]);
        assert_eq!(text, "Name     Vserver\n-------  -------\na        svm1\nbcdefgh  -\n2 entries.\n");
        assert_eq!(of_records(&json!({ "records": [] }), &[("Name", "name")]), "There are none.\n");
    }

    #[test]
    fn fields_stand_under_each_other() {
        let record = json!({ "name": "x\u{1b}[31m", "on": true, "list": ["a", 1], "empty": "" });
        let fields = of_record(&record, &[("Name", "name"), ("Is on", "on"), ("List", "list"), ("Empty", "empty"), ("None", "none.at.all")]);
        assert_eq!(of_fields(&fields), " Name: x [31m\nIs on: true\n List: a, 1\nEmpty: -\n None: -\n");
    }
}
