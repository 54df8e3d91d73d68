//! AWS KMS configurations as they are shown: no secrets, and shared with what the node has in memory, since lists show thousands of them.

use crate::inner::Inner;
use crate::records::{AwsKmsRecord, Stored, StoredSettings, SvmRecord};
use crate::revocation;
use crate::settings::Settings;
use keystead_awskms::TlsPolicy;
use keystead_store::Revision;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// How many texts of a configuration are kept.
pub const TEXTS: usize = 2;

/// An AWS KMS configuration, as it can be shown.
#[derive(Debug, Clone)]
pub struct AwsKms {
    /// What a list has looked up is looked up once for all of it, and kept until something of it changes.
    all: Arc<Vec<Shown>>,
    /// Its place there.
    at: usize,
}

/// A configuration, copied: a list goes through thousands of them in this order, and finds one beside the other in memory. The view's own lie wherever there was room when each was read.
#[derive(Debug)]
pub(crate) struct Shown {
    bound: Option<Duration>,
    config: AwsKmsRecord,
    svm_name: Box<str>,
    texts: [OnceLock<Arc<[u8]>>; TEXTS],
    /// What it was copied from.
    of: (Arc<Stored<AwsKmsRecord>>, Option<Arc<Stored<SvmRecord>>>),
}

/// The last list, and the revision that it was made at.
#[derive(Default)]
pub(crate) struct Configs(Mutex<Option<(Revision, Arc<Vec<Shown>>)>>);

impl AwsKms {
    /// The identifier of the configuration.
    pub fn uuid(&self) -> Uuid {
        self.shown().config.uuid
    }

    /// The SVM that it belongs to.
    pub fn svm(&self) -> Uuid {
        self.shown().config.svm
    }

    /// The SVM's name; empty where the SVM is just being deleted.
    pub fn svm_name(&self) -> &str {
        &self.shown().svm_name
    }

    /// What is set.
    pub fn settings(&self) -> &StoredSettings {
        &self.shown().config.settings
    }

    /// How long after a revocation in AWS this SVM's keys can still be served; none where nothing bounds it.
    pub fn bound(&self) -> Option<Duration> {
        self.shown().bound
    }

    /// A place for a text that the caller has made of all this, the same for all configurations; below [`TEXTS`]. It is empty again when something of it changes.
    pub fn text(&self, which: usize) -> Option<&OnceLock<Arc<[u8]>>> {
        self.shown().texts.get(which)
    }

    #[allow(clippy::indexing_slicing)] // Made with a place that is there, and the list does not change.
    fn shown(&self) -> &Shown {
        &self.all[self.at]
    }
}

impl Inner {
    /// All configurations, in the order of their identifiers.
    pub(crate) fn shown_configs(&self) -> impl Iterator<Item = AwsKms> + use<> {
        let all = self.all_shown_configs();
        (0..all.len()).map(move |at| AwsKms { all: Arc::clone(&all), at })
    }

    /// One configuration.
    pub(crate) fn shown_config(&self, stored: Arc<Stored<AwsKmsRecord>>, svm: Option<Arc<Stored<SvmRecord>>>) -> AwsKms {
        AwsKms { all: Arc::new(vec![shown(&self.settings(), stored, svm)]), at: 0 }
    }

    fn all_shown_configs(&self) -> Arc<Vec<Shown>> {
        // Before what it is the revision of: a change in between is seen, and the next list is made anew.
        let revision = self.view.configs_revision();
        let last = self.configs.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, all)) = last.as_ref().filter(|(at, _)| *at == revision) {
            return Arc::clone(all);
        }
        let settings = self.settings();
        let svms: HashMap<Uuid, Arc<Stored<SvmRecord>>> = self.view.shared_all::<SvmRecord>().into_iter().map(|svm| (svm.record.uuid, svm)).collect();
        let before = last.map(|(_, all)| all).unwrap_or_default();
        let all = self.view.shared_all::<AwsKmsRecord>().into_iter().map(|stored| {
            let svm = svms.get(&stored.record.svm).map(Arc::clone);
            let mut new = shown(&settings, stored, svm);
            let known = before.binary_search_by_key(&new.config.uuid, |known| known.config.uuid);
            if let Some(known) = known.ok().and_then(|at| before.get(at)).filter(|known| new.is_as(known)) {
                new.texts.clone_from(&known.texts);
            }
            new
        });
        let all = Arc::new(all.collect::<Vec<_>>());
        *self.configs.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((revision, Arc::clone(&all)));
        all
    }
}

impl Shown {
    /// Whether nothing has changed since that.
    fn is_as(&self, before: &Self) -> bool {
        let same_svm = match (&self.of.1, &before.of.1) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (None, None) => true,
            _ => false,
        };
        same_svm && Arc::ptr_eq(&self.of.0, &before.of.0) && self.bound == before.bound
    }
}

fn shown(cluster: &Settings, stored: Arc<Stored<AwsKmsRecord>>, svm: Option<Arc<Stored<SvmRecord>>>) -> Shown {
    let settings = crate::poll::poll_settings(cluster, &stored.record);
    let of = &stored.record.settings;
    let tls = TlsPolicy { verify: of.verify, verify_host: of.verify_host, verify_ip: of.verify_ip };
    let proven = tls.proves(of.host.as_ref().is_some_and(|host| host.parse::<IpAddr>().is_ok()));
    let bound = revocation::bound(&settings, Duration::from_secs(u64::from(of.timeout)), proven);
    let svm_name = svm.as_ref().map_or("", |svm| &svm.record.name).into();
    Shown { bound, config: stored.record.clone(), svm_name, texts: Default::default(), of: (stored, svm) }
}
