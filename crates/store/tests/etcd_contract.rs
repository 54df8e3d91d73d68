//! The contract suite on the etcd backend: three real members, with mutual TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use async_trait::async_trait;
use keystead_store::Store;
use keystead_store::contract::Fixture;
use keystead_store::etcd::{EtcdOptions, EtcdStore, EtcdTls};
use keystead_testkit::etcd::Etcd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// One etcd for all cases: each has a prefix of its own. It lives in a thread of its own, since every test has its own runtime, and ends with the process.
fn options() -> EtcdOptions {
    static SHARED: OnceLock<EtcdOptions> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let shared = SHARED.get_or_init(|| {
        let (started, options) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let etcd = Etcd::start(3).await.unwrap_or_else(|error| panic!("{error}"));
                let tls = etcd.tls().clone();
                let tls = EtcdTls { ca: tls.ca.into(), certificate: tls.certificate.into(), key: tls.key.into_bytes().into() };
                started.send(EtcdOptions { endpoints: etcd.endpoints(), prefix: String::new(), tls: Some(tls) }).unwrap();
                std::future::pending::<()>().await;
            });
        });
        options.recv().expect("etcd has not started")
    });
    EtcdOptions { prefix: format!("/case-{}", NEXT.fetch_add(1, Ordering::Relaxed)), ..shared.clone() }
}

struct OnEtcd {
    options: EtcdOptions,
}

#[async_trait]
impl Fixture for OnEtcd {
    async fn open(&self) -> Arc<dyn Store> {
        let store = EtcdStore::new(&self.options).unwrap();
        store.check_members().await.unwrap();
        Arc::new(store)
    }

    async fn close(&self, store: Arc<dyn Store>) {
        drop(store);
    }
}

keystead_store::contract_tests!(OnEtcd { options: options() });
