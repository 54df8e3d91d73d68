//! The program, with a listener at its named steps: for the crash tests.
//!
//! `STEPNODE_LOG` names a file that gets each step as it is passed. `STEPNODE_STOP_AT` names the step at which the process kills itself, as `kill -9` would: `enable.encrypt.after`, or `accept.before#2` for the second time.
//! `STEPNODE_PLANT=early-ack` plants a mistake that the tests must catch: transactions are acknowledged a moment before they are durable.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use async_trait::async_trait;
use clap::Parser as _;
use keystead::cli::{Cli, Command};
use keystead::serve::{Hooks, run};
use keystead_manager::steps::Steps;
use keystead_store::{Entry, LeaseId, Page, Range, Result, Revision, Store, Txn, Watch};
use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn main() {
    let variable = |name: &str| std::env::var(name).ok();
    let mut hooks = Hooks {
        steps: Arc::new(Watcher { log: variable("STEPNODE_LOG"), stop_at: variable("STEPNODE_STOP_AT"), passed: Mutex::default() }),
        ..Hooks::default()
    };
    if variable("STEPNODE_PLANT").as_deref() == Some("early-ack") {
        hooks.store = Box::new(|inner| Arc::new(EarlyAck { inner }));
    }
    let Command::Serve(arguments) = Cli::parse().command else { panic!("the tests start nodes with it") };
    if let Err(why) = run(arguments, hooks) {
        eprintln!("stepnode: {why}");
        std::process::exit(1);
    }
}

struct Watcher {
    log: Option<String>,
    stop_at: Option<String>,
    passed: Mutex<HashMap<String, u32>>,
}

impl Steps for Watcher {
    fn reached(&self, step: &str) {
        let mut passed = self.passed.lock().unwrap();
        let count = passed.entry(step.to_owned()).or_default();
        *count += 1;
        if let Some(path) = &self.log {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "{step}").unwrap();
        }
        let here = [format!("{step}#{count}"), if *count == 1 { step.to_owned() } else { String::new() }];
        if self.stop_at.as_ref().is_some_and(|stop| here.contains(stop)) {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            // The signal comes before this returns, or very soon after it.
            std::thread::park();
        }
    }
}

/// Acknowledges a transaction before it is durable. What it says the revision is, is a guess that is right as long as nobody else writes at the same moment.
struct EarlyAck {
    inner: Arc<dyn Store>,
}

#[async_trait]
impl Store for EarlyAck {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.inner.get(key).await
    }

    async fn range(&self, range: Range) -> Result<Page> {
        self.inner.range(range).await
    }

    async fn transact(&self, txn: Txn) -> Result<Revision> {
        // Only what creates an SVM: its caller looks at nothing but the acknowledgement.
        let creates_svm = txn.writes.iter().any(|write| matches!(write, keystead_store::Write::Put { key, .. } if key.starts_with("/svm-names/")));
        let now = self.inner.range(Range::prefix("/", 1)).await?.revision;
        if !creates_svm || now == Revision(0) {
            return self.inner.transact(txn).await;
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            inner.transact(txn).await
        });
        Ok(now)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        self.inner.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.inner.grant_lease(ttl).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<()> {
        self.inner.renew_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.inner.revoke_lease(lease).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
