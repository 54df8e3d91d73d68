//! What all clients of a process share: roots of trust, the egress rule, names, the rate.

use crate::calls::Calls;
use crate::egress::{Egress, EgressError};
use crate::keeper::{Keeper, Load};
use crate::limiter::Limiter;
use crate::resolver::Resolver;
use crate::source::CredentialsSource;
use crate::tls;
use aws_smithy_async::time::SharedTimeSource;
use rustls::RootCertStore;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How long a name may take to resolve when it is only looked at beforehand.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// What an [`Environment`] is made from.
pub struct EnvironmentOptions {
    /// PEM certificates that vouch for AWS endpoints and proxies beside the machine's own roots.
    pub extra_ca: Option<String>,
    /// The egress rule at the start.
    pub egress: Egress,
    /// The rate at the start.
    pub requests_per_second: u32,
    /// Turns names into addresses.
    pub resolver: Arc<dyn Resolver>,
}

/// What all clients of a process share. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    shared: Arc<Shared>,
}

struct Shared {
    roots: Arc<RootCertStore>,
    egress: RwLock<Arc<Egress>>,
    limiter: Limiter,
    resolver: Arc<dyn Resolver>,
    /// Whether TLS is restricted to what FIPS mode allows.
    fips: Arc<AtomicBool>,
    providers: Arc<dyn Load>,
    /// One for each source that is in use, so that a thousand clients ask the metadata service once.
    keepers: Mutex<HashMap<CredentialsSource, Arc<Keeper>>>,
    calls: Arc<Calls>,
}

impl Environment {
    /// Reads the machine's roots and the further ones.
    ///
    /// # Errors
    /// A text for the operator: the further ones cannot be read.
    pub fn new(options: EnvironmentOptions) -> Result<Self, String> {
        let roots = tls::roots(&tls::machine_roots(), options.extra_ca.as_deref())?;
        let fips = Arc::new(AtomicBool::new(false));
        Ok(Self {
            shared: Arc::new(Shared {
                providers: crate::providers::of_node(&roots, Arc::clone(&fips)),
                fips,
                keepers: Mutex::default(),
                calls: Arc::default(),
                roots,
                egress: RwLock::new(Arc::new(options.egress)),
                limiter: Limiter::new(options.requests_per_second),
                resolver: options.resolver,
            }),
        })
    }

    /// Sets the egress rule for every connection from now on.
    pub fn set_egress(&self, egress: Egress) {
        *self.shared.egress.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(egress);
    }

    /// Sets the most requests a second to one account and region.
    pub fn set_requests_per_second(&self, rate: u32) {
        self.shared.limiter.set(rate);
    }

    /// Restricts the TLS of every client that is made from now on to what FIPS mode allows, or not. Clients that exist stay as they are: make them anew.
    pub fn set_fips(&self, fips: bool) {
        self.shared.fips.store(fips, Ordering::Release);
    }

    /// Whether connections are made in FIPS mode from now on.
    pub fn fips(&self) -> bool {
        self.shared.fips.load(Ordering::Acquire)
    }

    /// Whether the operator has named this host, or its address, in `allow_endpoints`.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.egress().allows(host, port)
    }

    /// Looks at a host before anything connects to it. A name that does not resolve here, or not in time, passes: a proxy may know it, and every connection checks again.
    ///
    /// # Errors
    /// [`EgressError::Inside`]: one of its addresses leads inside, and is not allowed.
    pub async fn check_host(&self, host: &str, port: u16) -> Result<(), EgressError> {
        self.check_host_within(host, port, LOOKUP_LIMIT).await
    }

    pub(crate) async fn check_host_within(&self, host: &str, port: u16, limit: Duration) -> Result<(), EgressError> {
        let egress = self.egress();
        if let Ok(address) = host.parse::<IpAddr>() {
            return egress.check(host, address, port);
        }
        match tokio::time::timeout(limit.min(LOOKUP_LIMIT), self.shared.resolver.resolve(host)).await {
            Ok(Ok(addresses)) => addresses.into_iter().try_for_each(|address| egress.check(host, address, port)),
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    /// What is counted of the calls of all clients.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.shared.calls
    }

    pub(crate) fn egress(&self) -> Arc<Egress> {
        Arc::clone(&self.shared.egress.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn resolver(&self) -> Arc<dyn Resolver> {
        Arc::clone(&self.shared.resolver)
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.shared.limiter
    }

    /// The credentials of a source, shared by all clients.
    pub(crate) fn keeper(&self, source: &CredentialsSource) -> Arc<Keeper> {
        let mut keepers = self.shared.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Keeper::new(source.clone(), Arc::clone(&self.shared.providers), SharedTimeSource::default());
        Arc::clone(keepers.entry(source.clone()).or_insert_with(made))
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.shared.roots
    }
}
