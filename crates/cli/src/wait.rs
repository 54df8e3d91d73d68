//! Waiting for a job. The job runs at the node whoever watches: who stops watching, or loses the node, only no longer sees it.

use crate::connection::{Answer, Context, segment};
use crate::failure::{Exit, Failure};
use crate::progress::Progress;
use crate::table::{cell, plain};
use clap::Args;
use serde_json::Value;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

/// When a job is looked at again: soon, as most end soon, then twice as long each time.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// The longest of these times.
const LOOK: Duration = Duration::from_millis(500);
/// How long a node that is watched may be away, or without a quorum, or too busy.
const AWAY: Duration = Duration::from_secs(30);
/// How long it may take to say how a job is: it says that from its memory.
const ANSWER: Duration = Duration::from_secs(15);

/// The option of commands that start a job.
#[derive(Debug, Clone, Args)]
pub struct Waiting {
    /// Do not wait for the job: say which one it is, and end.
    #[arg(long, visible_alias = "background")]
    pub no_wait: bool,
}

/// Waits for the job of an answer that has one, and says how it ended. `done`: what is done then.
///
/// # Errors
/// The job has failed; Ctrl-C; the node is away for too long.
pub async fn to_the_end(context: &Context, answer: Answer, waiting: &Waiting, done: &str) -> Result<(), Failure> {
    let Some(uuid) = answer.body.pointer("/job/uuid").and_then(Value::as_str).map(str::to_owned) else {
        return context.say(&answer.body, || format!("{done}.\n"));
    };
    if waiting.no_wait {
        let uuid = plain(&uuid);
        return context.say(&answer.body, || format!("job {uuid} is started; to watch it: keystead job watch {uuid}\n"));
    }
    let job = watch(context, &uuid).await?;
    context.say(&job, || match cell(&job, "message").as_str() {
        "-" | "success" => format!("{done}.\n"),
        message => format!("{done}: {message}.\n"),
    })
}

/// Watches a job until it has ended well; answers it.
///
/// # Errors
/// It has failed; Ctrl-C; the node is away for too long; there is no such job.
pub async fn watch(context: &Context, uuid: &str) -> Result<Value, Failure> {
    watch_for(context, uuid, AWAY, ANSWER).await
}

async fn watch_for(context: &Context, uuid: &str, away: Duration, answer: Duration) -> Result<Value, Failure> {
    let again = format!("keystead job watch {uuid}");
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| Failure::failed(format!("Ctrl-C cannot be caught: {error}")))?;
    let mut progress = Progress::begin();
    let ended = look(context, uuid, (away, answer), &mut interrupts, &mut progress).await;
    progress.end();
    let job = ended.map_err(|failure| match failure.exit {
        Exit::Interrupted => Failure::interrupted(format!("stopped watching; job {uuid} goes on")).next(format!("to watch it again: {again}")),
        Exit::Unreachable => {
            Failure { message: format!("{}; job {uuid} goes on", failure.message), ..failure }.next(format!("when a node answers again: {again}"))
        }
        Exit::Login => failure.next(format!("log in again, then: {again}")),
        Exit::NotFound => Failure { message: format!("there is no job {uuid}"), ..failure }
            .next("a job is kept for some minutes after its end; keystead job show lists those that there are"),
        _ => failure,
    })?;
    if job.get("state").and_then(Value::as_str) == Some("success") {
        return Ok(job);
    }
    if context.is_json() {
        context.say(&job, String::new)?;
    }
    Err(match job.get("error") {
        Some(error) => Failure { exit: Exit::Failed, ..Failure::of_api(error) },
        None => Failure::failed(format!("job {uuid} has failed: {}", cell(&job, "message"))),
    })
}

/// Looks until the job has ended. `most`: how long the node may be away, and how long each answer may take.
async fn look(context: &Context, uuid: &str, most: (Duration, Duration), interrupts: &mut Signal, progress: &mut Progress) -> Result<Value, Failure> {
    let path = format!("/cluster/jobs/{}", segment(uuid));
    let (mut away, mut pause) = (None::<Instant>, FIRST_LOOK);
    loop {
        let asked = Instant::now();
        let rest = match unless_interrupted(interrupts, context.get_within(&path, &[("fields", "*")], most.1)).await? {
            Ok(job) if has_ended(&job) => return Ok(job),
            Ok(job) => {
                away = None;
                progress.tell(&job);
                pause
            }
            Err(failure) if failure.is_for_the_moment() && away.get_or_insert(asked).elapsed() < most.0 => {
                progress.say(
                    if failure.code.is_some() { "the node cannot say it at the moment; asking again" } else { "the node does not answer; asking again" },
                    None,
                );
                failure.retry_after.map_or(pause, |wait| wait.clamp(pause, AWAY))
            }
            Err(failure) => return Err(failure),
        };
        unless_interrupted(interrupts, sleep(rest)).await?;
        pause = LOOK.min(pause * 2);
    }
}

/// What Ctrl-C ends in the middle of, where something must be said then.
pub(crate) async fn interruptible<T>(what: impl Future<Output = T>) -> Result<T, Failure> {
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| Failure::failed(format!("Ctrl-C cannot be caught: {error}")))?;
    unless_interrupted(&mut interrupts, what).await
}

async fn unless_interrupted<T>(interrupts: &mut Signal, what: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        _ = interrupts.recv() => Err(Failure::interrupted("")),
        done = what => Ok(done),
    }
}

fn has_ended(job: &Value) -> bool {
    matches!(job.get("state").and_then(Value::as_str), Some("success" | "failure"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Reply, replying, scripted};
    use serde_json::json;

    const JOB: &str = "6c1e0ad9-0000-4000-8000-000000000000";

    fn job(state: &str, more: Value) -> Option<(u16, Value)> {
        let mut job = json!({ "uuid": JOB, "state": state, "message": "120 of 400 keys are wrapped by version 2" });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some((200, job))
    }

    #[tokio::test]
    async fn a_node_that_goes_away_for_a_moment_is_asked_again() {
        let (context, node) = scripted(vec![job("running", json!({})), None, None, job("paused", json!({})), job("success", json!({}))]).await;
        assert_eq!(watch(&context, JOB).await.unwrap()["state"], "success");
        assert!(node.await.unwrap().iter().all(|asked| asked.starts_with(&format!("GET /api/cluster/jobs/{JOB}?"))));
    }

    #[tokio::test]
    async fn what_the_node_refuses_for_the_moment_is_asked_again() {
        let refused = |code: &str| Some((503, json!({ "error": { "code": code, "message": "not now" } })));
        let (context, node) =
            scripted(vec![job("running", json!({})), refused("65536600"), refused("262160"), refused("393271"), job("success", json!({}))]).await;
        assert_eq!(watch(&context, JOB).await.unwrap()["state"], "success");
        assert_eq!(node.await.unwrap().len(), 5);
        // A limit, where the node says when to come again.
        let limit = json!({ "error": { "code": "7", "message": "not now" } }).to_string();
        let done = json!({ "uuid": JOB, "state": "success" }).to_string();
        let (context, _node) = replying(vec![Reply::Answer(429, "retry-after: 0\r\n", limit.clone()), Reply::Answer(200, "", done)]).await;
        assert_eq!(watch(&context, JOB).await.unwrap()["state"], "success");
        let (context, _node) = replying(vec![Reply::Answer(429, "", limit)]).await;
        assert_eq!(watch(&context, JOB).await.unwrap_err().code.as_deref(), Some("7"));
    }

    #[tokio::test]
    async fn who_gives_up_says_which_job_goes_on() {
        let (away, answer) = (Duration::from_millis(300), Duration::from_millis(100));
        let refused = || Some((503, json!({ "error": { "code": "65536600", "message": "no quorum" } })));
        let (context, _node) = scripted((0..100).map(|_| refused()).collect()).await;
        let failure = watch_for(&context, JOB, away, answer).await.unwrap_err();
        assert!(failure.exit == Exit::Unreachable && failure.message.contains(&format!("no quorum; job {JOB} goes on")), "{failure:?}");
        assert!(failure.next.unwrap().contains(&format!("keystead job watch {JOB}")));
        // A node that hangs is away, too.
        let (context, _node) = replying((0..100).map(|_| Reply::Hang).collect()).await;
        let begun = Instant::now();
        let failure = watch_for(&context, JOB, away, answer).await.unwrap_err();
        assert!(failure.message.contains("no answer in time") && failure.message.contains(JOB), "{failure:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_job_that_fails_or_is_gone_ends_the_wait() {
        let error = json!({ "error": { "code": "4", "message": "no such key", "target": "key_id" } });
        let (context, _node) = scripted(vec![job("running", json!({})), job("failure", error.clone())]).await;
        let failed = watch(&context, JOB).await.unwrap_err();
        assert_eq!(
            (failed.exit, failed.code.as_deref(), failed.target.as_deref()),
            (Exit::Failed, Some("4"), Some("key_id")),
            "the job is there, and has failed"
        );
        let (context, _node) = scripted(vec![Some((404, error))]).await;
        let gone = watch(&context, JOB).await.unwrap_err();
        assert!(gone.exit == Exit::NotFound && gone.message.contains(JOB), "{gone:?}");
        let (context, _node) = scripted(vec![Some((401, json!({ "error": { "code": "6691623", "message": "no" } })))]).await;
        let login = watch(&context, JOB).await.unwrap_err();
        assert!(login.exit == Exit::Login && login.next.as_deref().is_some_and(|next| next.contains(JOB)), "{login:?}");
    }
}
