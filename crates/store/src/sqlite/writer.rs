//! The writer: one thread, one connection, group commit.
//!
//! Callers queue transactions. The writer takes what is queued, checks and applies one after the other inside one SQLite transaction, commits once, and only then answers all of them. So a sync
//! of the disk serves as many callers as have come together. A transaction whose comparisons fail writes nothing and leaves the others alone; where SQLite itself fails, all of the group
//! are taken back.

use super::lock::Lock;
use super::schema;
use super::watches::Watches;
use crate::error::{Error, Result};
use crate::types::{Compare, Entry, Event, EventBatch, LeaseId, Revision, Txn, Write};
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How many transactions one commit may carry.
const GROUP: usize = 256;
/// The pause before the keys of a lease that is over are tried to be deleted again.
const RETRY: Duration = Duration::from_millis(500);

type Answer<T> = oneshot::Sender<Result<T>>;

pub(super) enum Command {
    Transact(Txn, Answer<Revision>),
    Grant(Duration, Answer<LeaseId>),
    Renew(LeaseId, Answer<()>),
    Revoke(LeaseId, Answer<()>),
    Close(oneshot::Sender<()>),
}

pub(super) struct Writer {
    connection: Connection,
    revision: Revision,
    next_lease: u64,
    leases: HashMap<LeaseId, Lease>,
    watches: Arc<Watches>,
    /// Of its own, so that the writer lives as long as it must, whatever ends around it.
    runtime: Arc<Runtime>,
    /// Kept until the last commit is done, so that no other process opens the file before.
    _lock: Lock,
}

#[derive(Clone, Copy)]
struct Lease {
    ttl: Duration,
    /// When it runs out; once it is over, when the deletion of its keys is tried again.
    end: Instant,
    /// It has run out, and nothing brings it back: nobody may renew it or write under it, and its keys count as absent, also while the disk keeps us from deleting them.
    over: bool,
}

/// A transaction that was applied but not yet committed.
struct Applied {
    revision: Revision,
    /// `None` where it only checked.
    events: Option<Vec<Event>>,
    answer: Answer<Revision>,
}

impl Writer {
    pub(super) fn new(connection: Connection, revision: Revision, watches: Arc<Watches>, lock: Lock) -> std::io::Result<Self> {
        let runtime = Arc::new(tokio::runtime::Builder::new_current_thread().enable_time().build()?);
        Ok(Self { connection, revision, next_lease: 1, leases: HashMap::new(), watches, runtime, _lock: lock })
    }

    /// Serves commands until the store is closed or dropped.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let runtime = Arc::clone(&self.runtime);
        let mut group = Vec::new();
        loop {
            let next_end = self.leases.values().map(|lease| lease.end).min();
            let received = runtime.block_on(async {
                match next_end {
                    None => queue.recv_many(&mut group, GROUP).await,
                    Some(end) => tokio::select! {
                        received = queue.recv_many(&mut group, GROUP) => received,
                        () = tokio::time::sleep_until(end) => usize::MAX,
                    },
                }
            });
            self.end_leases();
            if received == 0 {
                return;
            }
            if let Some(closing) = self.serve(&mut group) {
                queue.close();
                group.extend(std::iter::from_fn(|| queue.try_recv().ok()));
                let _ = self.serve(&mut group);
                drop(self);
                let _ = closing.send(());
                return;
            }
        }
    }

    /// Serves a group of commands. Returns the answer that a close waits for.
    fn serve(&mut self, group: &mut Vec<Command>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        let mut transactions = Vec::new();
        for command in group.drain(..) {
            match command {
                Command::Transact(txn, answer) => transactions.push((txn, answer)),
                other => {
                    // The order of a lease's end and of transactions that were sent before it is kept.
                    self.commit_group(std::mem::take(&mut transactions));
                    closing = self.lease_command(other).or(closing);
                }
            }
        }
        self.commit_group(transactions);
        closing
    }

    fn lease_command(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Grant(ttl, answer) => {
                let id = LeaseId(self.next_lease);
                self.next_lease += 1;
                self.leases.insert(id, Lease { ttl, end: Instant::now() + ttl, over: false });
                let _ = answer.send(Ok(id));
            }
            Command::Renew(id, answer) => {
                let living = self.leases.get_mut(&id).filter(|lease| !lease.over);
                let renewed = living.map(|lease| lease.end = Instant::now() + lease.ttl);
                let _ = answer.send(renewed.ok_or(Error::LeaseGone));
            }
            Command::Revoke(id, answer) => {
                let result = if self.leases.contains_key(&id) { self.end_lease(id) } else { Ok(()) };
                let _ = answer.send(result);
            }
            Command::Close(answer) => return Some(answer),
            Command::Transact(..) => {}
        }
        None
    }

    /// Ends the leases whose time is over. Done before every group, so that a holder who slept cannot write on.
    fn end_leases(&mut self) {
        let now = Instant::now();
        let over: Vec<LeaseId> = self.leases.iter().filter(|(_, lease)| lease.end <= now).map(|(id, _)| *id).collect();
        for id in over {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.over = true;
            }
            if let Err(error) = self.end_lease(id) {
                tracing::warn!(%error, "the keys of a lease that is over could not be deleted; it is tried again");
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.end = now + RETRY;
                }
            }
        }
    }

    fn end_lease(&mut self, id: LeaseId) -> Result<()> {
        let keys = self.leased_keys(id).map_err(|error| self.refused(&error))?;
        if !keys.is_empty() {
            let mut txn = Txn::new();
            for key in keys {
                txn = txn.delete(key);
            }
            let (answer, mut reply) = oneshot::channel();
            self.commit_group(vec![(txn, answer)]);
            reply.try_recv().unwrap_or_else(|_| Err(Error::Unavailable("no answer".to_owned())))?;
        }
        self.leases.remove(&id);
        Ok(())
    }

    fn leased_keys(&self, id: LeaseId) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.connection.prepare_cached("SELECT key FROM record WHERE lease = ?1")?;
        let keys = statement.query_map([id.0], |row| row.get(0))?;
        keys.collect()
    }

    /// Applies the transactions, commits, tells the watchers, answers.
    fn commit_group(&mut self, group: Vec<(Txn, Answer<Revision>)>) {
        if group.is_empty() {
            return;
        }
        let before = self.revision;
        if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            let error = self.refused(&error);
            for (_, answer) in group {
                let _ = answer.send(Err(error.clone()));
            }
            return;
        }
        let mut applied: Vec<Applied> = Vec::with_capacity(group.len());
        let mut failed = Vec::new();
        let mut broken = None;
        for (txn, answer) in group {
            if let Some(error) = &broken {
                failed.push((answer, Error::clone(error)));
                continue;
            }
            match self.apply(&txn) {
                Ok((revision, events)) => applied.push(Applied { revision, events, answer }),
                Err(Trouble::Caller(error)) => failed.push((answer, error)),
                Err(Trouble::Sqlite(error)) => {
                    // A full disk and the like may end the whole SQLite transaction ("Response To Errors Within A Transaction"), so all of the group is taken back.
                    let error = self.refused(&error);
                    failed.push((answer, error.clone()));
                    broken = Some(error);
                }
            }
        }
        let outcome = match broken {
            Some(error) => {
                self.roll_back(before);
                Err(error)
            }
            None => self.commit(before),
        };
        match outcome {
            Ok(()) => {
                for one in applied {
                    if let Some(events) = one.events {
                        self.watches.publish(EventBatch { revision: one.revision, events });
                    }
                    let _ = one.answer.send(Ok(one.revision));
                }
            }
            Err(error) => failed.extend(applied.into_iter().map(|one| (one.answer, error.clone()))),
        }
        for (answer, error) in failed {
            let _ = answer.send(Err(error));
        }
    }

    fn commit(&mut self, before: Revision) -> Result<()> {
        let counted = self
            .connection
            .prepare_cached("UPDATE counter SET value = ?1 WHERE name = 'revision'")
            .and_then(|mut statement| statement.execute([self.revision.0]));
        let committed = counted.and_then(|_| self.connection.execute_batch("COMMIT"));
        let Err(error) = committed else { return Ok(()) };
        let open = !self.connection.is_autocommit();
        self.roll_back(before);
        // While the transaction is still open, nothing of it was committed. Where SQLite has ended it by itself with an I/O error, the sync of the log may be what failed, and nobody can
        // say what a restart will find.
        let io = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
        if open || !io {
            return Err(self.refused(&error));
        }
        // If it did happen, nobody was told: who follows must read anew.
        self.watches.forget(self.revision);
        Err(Error::Indeterminate(error.to_string()))
    }

    fn roll_back(&mut self, before: Revision) {
        self.revision = before;
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction of the store could not be rolled back");
        }
        // What the file says counts: after an unclear commit it may be ahead of what we think.
        if let Ok(revision) = schema::counter(&self.connection, "revision") {
            self.revision = Revision(revision);
        }
    }

    fn apply(&mut self, txn: &Txn) -> std::result::Result<(Revision, Option<Vec<Event>>), Trouble> {
        for compare in &txn.compares {
            if !self.holds(compare)? {
                let (Compare::Absent(key) | Compare::Present(key) | Compare::Unchanged(key, _) | Compare::EmptyPrefix(key)) = compare;
                return Err(Trouble::Caller(Error::Conflict { key: key.clone() }));
            }
        }
        for write in &txn.writes {
            if let Write::Put { lease: Some(lease), .. } = write
                && self.leases.get(lease).is_none_or(|lease| lease.over)
            {
                return Err(Trouble::Caller(Error::LeaseGone));
            }
        }
        if txn.writes.is_empty() {
            return Ok((self.revision, None));
        }
        let revision = Revision(self.revision.0 + 1);
        let mut events = Vec::with_capacity(txn.writes.len());
        for write in &txn.writes {
            match write {
                Write::Put { key, value, lease } => {
                    let created: u64 = self
                        .connection
                        .prepare_cached(
                            "INSERT INTO record (key, value, created, revision, lease) VALUES (?1, ?2, ?3, ?3, ?4)
                             ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision, lease = excluded.lease RETURNING created",
                        )?
                        .query_row((key, value.as_ref(), revision.0, lease.map(|lease| lease.0)), |row| row.get(0))?;
                    events.push(Event::Put(Entry { key: key.clone(), value: value.clone(), created: Revision(created), revision, lease: *lease }));
                }
                Write::Delete { key } => {
                    if self.connection.prepare_cached("DELETE FROM record WHERE key = ?1")?.execute([key])? > 0 {
                        events.push(Event::Delete { key: key.clone() });
                    }
                }
            }
        }
        self.revision = revision;
        Ok((revision, Some(events)))
    }

    fn holds(&self, compare: &Compare) -> rusqlite::Result<bool> {
        let revision = |key: &str| -> rusqlite::Result<Option<u64>> {
            let mut statement = self.connection.prepare_cached("SELECT revision, lease FROM record WHERE key = ?1")?;
            let found: Option<(u64, Option<u64>)> = statement.query_row([key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            Ok(found.filter(|(_, lease)| !self.is_over(*lease)).map(|(revision, _)| revision))
        };
        Ok(match compare {
            Compare::Absent(key) => revision(key)?.is_none(),
            Compare::Present(key) => revision(key)?.is_some(),
            Compare::Unchanged(key, expected) => revision(key)? == Some(expected.0),
            Compare::EmptyPrefix(prefix) => {
                let mut statement = self.connection.prepare_cached("SELECT key, lease FROM record WHERE key >= ?1 ORDER BY key")?;
                let mut rows = statement.query([prefix])?;
                while let Some(row) = rows.next()? {
                    let key: String = row.get(0)?;
                    if !key.starts_with(prefix.as_str()) {
                        break;
                    }
                    if !self.is_over(row.get(1)?) {
                        return Ok(false);
                    }
                }
                true
            }
        })
    }

    fn is_over(&self, lease: Option<u64>) -> bool {
        lease.is_some_and(|lease| self.leases.get(&LeaseId(lease)).is_some_and(|lease| lease.over))
    }

    fn refused(&self, error: &rusqlite::Error) -> Error {
        let path = self.connection.path().unwrap_or("the store");
        schema::classify(std::path::Path::new(path), error)
    }
}

enum Trouble {
    /// The transaction itself does not fit; others are not concerned.
    Caller(Error),
    /// The database fails; nobody's transaction can be trusted to stand.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}
