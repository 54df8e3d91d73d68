//! Watches that go on at another member when one is away.

use super::members::{MAX_ANSWER_BYTES, Members};
use super::{Names, end_of, number, revision};
use crate::error::{Error, Result};
use crate::types::{Event, EventBatch, Revision, Watch, is_everything};
use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How many changes may wait for the watcher; etcd keeps the rest.
const BACKLOG: usize = 1_024;
/// How often a member is asked whether it still watches, and how long it may be silent.
const ASK: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_millis(1_500);
/// How long a watch may take to begin at a member.
const BEGIN: Duration = Duration::from_secs(2);
/// The pause before the next member is tried.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn start(members: Arc<Members>, names: Names, prefix: &str, after: Revision) -> Watch {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let from = if is_everything(prefix) { names.head() } else { names.record(prefix) };
    let follower = Follower { members, from, end: end_of(&names.record(if prefix.is_empty() { "/" } else { prefix })), names, sender: sender.clone(), after };
    tokio::spawn(async move {
        // Whoever dropped the watch is noticed also while there is nothing to tell.
        tokio::select! {
            () = follower.run() => {}
            () = sender.closed() => {}
        }
    });
    Watch::new(receiver)
}

struct Follower {
    members: Arc<Members>,
    names: Names,
    /// The first key that is watched: the head, where all records are.
    from: String,
    end: Vec<u8>,
    sender: mpsc::Sender<Result<EventBatch>>,
    /// The last revision that the watcher has.
    after: Revision,
}

/// Why a member is followed no longer.
enum End {
    /// It was lost: another may go on.
    Lost(String),
    /// The watch itself is over.
    Over(Option<Error>),
}

impl Follower {
    async fn run(mut self) {
        loop {
            let (place, client) = self.members.current();
            match self.follow(client).await {
                End::Lost(reason) => {
                    tracing::debug!(%reason, from = self.from, after = self.after.0, "the watch goes on at another member of etcd");
                    self.members.leave(place);
                    tokio::time::sleep(PAUSE).await;
                }
                End::Over(None) => return,
                End::Over(Some(error)) => {
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    async fn follow(&mut self, client: etcd_client::Client) -> End {
        if let Err(end) = self.check_history(&client).await {
            return end;
        }
        let options = WatchOptions::new().with_range(self.end.clone()).with_start_revision(number(self.after.0 + 1));
        let opening = async { client.watch_client().max_decoding_message_size(MAX_ANSWER_BYTES).watch(self.from.as_str(), Some(options)).await };
        let (mut requests, mut answers) = match tokio::time::timeout(BEGIN, opening).await {
            Ok(Ok(stream)) => stream.split(),
            Ok(Err(error)) => return End::Lost(error.to_string()),
            Err(_) => return End::Lost("no watch in time".to_owned()),
        };
        let mut asked = tokio::time::interval(ASK);
        asked.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut silent_since = tokio::time::Instant::now();
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        self.members.is_there();
                        if let Err(end) = self.take(&answer).await {
                            return end;
                        }
                        silent_since = tokio::time::Instant::now();
                    }
                    Ok(None) => return End::Lost("the watch was ended".to_owned()),
                    Err(error) => return End::Lost(error.to_string()),
                },
                _ = asked.tick() => {
                    if silent_since.elapsed() > SILENCE {
                        return End::Lost(format!("no word within {} ms", SILENCE.as_millis()));
                    }
                    if let Err(error) = requests.request_progress().await {
                        return End::Lost(error.to_string());
                    }
                }
            }
        }
    }

    /// An etcd that was set back (restored from a copy) has forgotten what the watcher knows, and a watch of it would wait until it has counted up again.
    async fn check_history(&self, client: &etcd_client::Client) -> std::result::Result<(), End> {
        let mut kv = client.kv_client();
        let asking = kv.get(self.from.as_str(), Some(GetOptions::new().with_keys_only()));
        let answer = match tokio::time::timeout(BEGIN, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(End::Lost(error.to_string())),
            Err(_) => return Err(End::Lost("no answer in time".to_owned())),
        };
        let now = revision(answer.header().map_or(0, etcd_client::ResponseHeader::revision));
        if now < self.after { Err(End::Over(Some(Error::Compacted { oldest: now.0 }))) } else { Ok(()) }
    }

    async fn take(&mut self, answer: &WatchResponse) -> std::result::Result<(), End> {
        if answer.compact_revision() != 0 {
            // Watches may begin at the compacted revision itself, and so after the one before.
            let oldest = revision(answer.compact_revision()).0.saturating_sub(1);
            return Err(End::Over(Some(Error::Compacted { oldest })));
        }
        if answer.canceled() {
            return Err(End::Lost(answer.cancel_reason().to_owned()));
        }
        for batch in self.batches(answer).map_err(|error| End::Over(Some(error)))? {
            let revision = batch.revision;
            if self.sender.send(Ok(batch)).await.is_err() {
                return Err(End::Over(None));
            }
            self.after = revision;
        }
        Ok(())
    }

    /// The changes of each revision together. etcd never has a revision in two messages, unless it is asked to.
    fn batches(&self, answer: &WatchResponse) -> Result<Vec<EventBatch>> {
        let mut batches: Vec<EventBatch> = Vec::new();
        for event in answer.events() {
            let Some(kv) = event.kv() else { continue };
            let at = revision(kv.mod_revision());
            let change = match event.event_type() {
                // It tells of the revision alone.
                _ if kv.key() == self.names.head().as_bytes() => None,
                EventType::Put => Some(Event::Put(self.names.entry(kv)?)),
                EventType::Delete => Some(Event::Delete { key: self.names.key(kv.key())? }),
            };
            match batches.last_mut() {
                Some(batch) if batch.revision == at => batch.events.extend(change),
                _ => batches.push(EventBatch { revision: at, events: change.into_iter().collect() }),
            }
        }
        Ok(batches)
    }
}
