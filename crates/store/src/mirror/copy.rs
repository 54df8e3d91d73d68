//! Reading everything anew into the copy, while changes go on coming in.

use super::file::File;
use crate::Store;
use crate::error::Result;
use crate::types::{Range, Txn};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How many records are read at a time.
const PAGE: usize = 1_000;
/// The pause after a failure of the store.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked whether the changes up to the end have come in.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is told how far the copy is.
const TELL: Duration = Duration::from_secs(10);

/// Makes the copy with this number. Ends when it is complete, or when another is made.
pub(super) async fn run(store: Arc<dyn Store>, file: Arc<File>, copy: u64) {
    let begin = Instant::now();
    let mut copier = Copier { store, file, copy, range: Range::prefix(super::ALL, PAGE), records: 0, told: begin };
    loop {
        match copier.go_on().await {
            Ok(true) => tracing::info!(records = copier.records, seconds = begin.elapsed().as_secs(), "the local copy of the store is complete"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, records = copier.records, "the local copy of the store is not complete yet; it goes on");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        return;
    }
}

struct Copier {
    store: Arc<dyn Store>,
    file: Arc<File>,
    copy: u64,
    /// What is to be read next.
    range: Range,
    records: usize,
    told: Instant,
}

impl Copier {
    /// Answers whether the copy was completed; it is not where another has been begun.
    async fn go_on(&mut self) -> Result<bool> {
        loop {
            let page = self.store.range(self.range.clone()).await?;
            let (copy, count, more) = (self.copy, page.entries.len(), page.more);
            let last = page.entries.last().map(|entry| entry.key.clone());
            if !self.file.run(move |file| file.add(&page.entries, copy)).await? {
                return Ok(false);
            }
            self.records += count;
            if last.is_some() {
                self.range.after = last;
            }
            if !more {
                break;
            }
            if self.told.elapsed() >= TELL {
                self.told = Instant::now();
                tracing::info!(records = self.records, "the local copy of the store is being made");
            }
        }
        // Pages may have shown more than the changes that have come in: all up to now must.
        let revision = self.store.transact(Txn::new()).await?;
        loop {
            let copy = self.copy;
            let (finished, current) = self.file.run(move |file| Ok((file.finish(copy, revision)?, file.meta()?.copy == copy))).await?;
            if finished || !current {
                return Ok(finished);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
