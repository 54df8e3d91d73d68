//! The conformance runner: replays KMIP test cases against a running server and compares whole answers.
//!
//! A case is an XML transcript as OASIS publishes them (KMIP Profiles, "Test Cases"): requests and the responses to them, in the XML encoding of KMIP, with placeholders such as
//! `$UNIQUE_IDENTIFIER_0` and `$NOW`. The transcripts are OASIS's and are not part of this project: give any folder of them.
//!
//! * [`case`]: reads a transcript.
//! * [`compare`]: an answer against the expected one, with exactly the variations that the profiles allow.
//! * [`client`]: the client (`keystead_kmip_client`), and what only tests want of it.
//! * [`replay`]: a case against a server.

pub mod case;
pub mod client;
pub mod compare;

use case::Case;
use client::{Client, Endpoint};
use compare::{Bindings, compare};
use std::path::{Path, PathBuf};

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every answer was as expected.
    Pass,
    /// The first difference, with the number of the exchange, from 1.
    Fail(String),
}

/// The transcripts of folders, in the order of their names: `.xml` files, not deeper.
///
/// # Errors
/// A folder cannot be read.
pub fn cases_in(folders: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut cases = Vec::new();
    for folder in folders {
        let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", folder.display());
        let mut here = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml")) {
                here.push(path);
            }
        }
        here.sort();
        cases.extend(here);
    }
    Ok(cases)
}

/// Replays a transcript.
///
/// # Errors
/// The file cannot be read, or is no transcript: that says nothing of the server.
pub fn replay_file(path: &Path, endpoint: &Endpoint) -> Result<Verdict, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    replay(&Case::parse(&text)?, endpoint)
}

/// Replays a case over one connection.
///
/// # Errors
/// A request of the case cannot be written, for example for a placeholder that nothing has bound.
pub fn replay(case: &Case, endpoint: &Endpoint) -> Result<Verdict, String> {
    let mut client = match Client::connect(endpoint) {
        Ok(client) => client,
        Err(error) => return Ok(Verdict::Fail(format!("no connection: {error}"))),
    };
    let mut bindings = Bindings::default();
    for (number, exchange) in case.exchanges.iter().enumerate() {
        let request = bindings.fill(&exchange.request)?;
        let answer = match client.call(&request) {
            Ok(answer) => answer,
            Err(error) => return Ok(Verdict::Fail(format!("exchange {}: {error}", number + 1))),
        };
        if let Err(difference) = compare(&exchange.response, &answer, &mut bindings) {
            return Ok(Verdict::Fail(format!("exchange {}: {difference}", number + 1)));
        }
    }
    Ok(Verdict::Pass)
}
