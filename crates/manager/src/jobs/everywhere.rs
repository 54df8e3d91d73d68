//! What a job has every other node do before it goes on: prove that AWS KMS gives a KEK back there too, and load it. A node that could not would be without the SVM's keys afterwards.

use super::context::JobContext;
use crate::peers::{Heard, Said, What};
use crate::records::{AwsKmsRecord, KekRecord};
use crate::{Code, Error, Result};
use uuid::Uuid;

/// Has every other node unwrap a KEK with a configuration as it would be. Answers, in words, which nodes have: for the job's end. One that is down is named, and cannot be asked; it unwraps what is stored
/// when it starts.
///
/// # Errors
/// `code`, with the nodes that could not, or do not answer, and why.
pub(super) async fn prove(job: &JobContext, config: &AwsKmsRecord, kek: &KekRecord, code: Code) -> Result<String> {
    let manager = &job.manager;
    let heard = manager.ask_others(What::Prove { config: Box::new(config.clone()), kek: Box::new(kek.clone()) }).await;
    all("proven", &manager.node.name, &heard, code)
}

/// Asks every other node. One that is down fails it, too.
///
/// # Errors
/// As [`prove`].
pub(super) async fn ask(job: &JobContext, done: &str, what: What, code: Code) -> Result<String> {
    let manager = &job.manager;
    let heard = manager.ask_others(what).await;
    if let Some(down) = heard.iter().find(|heard| matches!(heard.said, Said::Down(_))) {
        return Err(Error::with(code, down.describe()));
    }
    all(done, &manager.node.name, &heard, code)
}

/// Has every other node load the versions of the KEK that it lacks. As [`prove`].
///
/// # Errors
/// As [`prove`].
pub(super) async fn loaded(job: &JobContext, config: Uuid, code: Code) -> Result<String> {
    let manager = &job.manager;
    all("loaded", &manager.node.name, &manager.ask_others(What::Restore { config }).await, code)
}

/// Has every other node open the onboard key.
///
/// # Errors
/// As [`prove`].
pub(super) async fn onboard(job: &JobContext, code: Code) -> Result<String> {
    let manager = &job.manager;
    all("open", &manager.node.name, &manager.ask_others(What::Onboard).await, code)
}

/// Whether every other node has the SVM's KEK in memory. One that is down, or does not answer, says nothing: what follows has it prove the new one.
///
/// # Errors
/// 65537543.
pub(super) async fn has_the_kek(job: &JobContext, config: Uuid) -> Result<()> {
    let heard = job.manager.ask_others(What::State { config }).await;
    let without: Vec<String> = heard.iter().filter(|heard| matches!(heard.said, Said::Not(_))).map(Heard::describe).collect();
    if without.is_empty() { Ok(()) } else { Err(Error::with(Code::KekMissingOnNode, format!("{}; restore loads it", without.join("; ")))) }
}

fn all(done: &str, own: &str, heard: &[Heard], code: Code) -> Result<String> {
    let failed: Vec<String> = heard.iter().filter(|heard| matches!(heard.said, Said::Not(_) | Said::Silent(_))).map(Heard::describe).collect();
    if !failed.is_empty() {
        return Err(Error::with(code, failed.join("; ")));
    }
    let proven = std::iter::once(own).chain(heard.iter().filter(|heard| heard.said.trouble().is_none()).map(|heard| heard.node.name.as_str()));
    let down = heard
        .iter()
        .filter(|heard| matches!(heard.said, Said::Down(_)))
        .map(|heard| format!("; node {} was not asked, {}", heard.node.name, heard.said.text()));
    let nodes: Vec<&str> = proven.collect();
    Ok(format!("{done} on {} {}{}", if nodes.len() == 1 { "node" } else { "nodes" }, nodes.join(", "), down.collect::<String>()))
}
