//! FIPS mode: what it restricts, and what exists that it would refuse.
//!
//! It is a setting of the cluster. It restricts certificates, TLS and the keys of the data plane to what FIPS approves; it does not make a validated module of the program (`docs/decisions/0018`).

use crate::certificates::CertificateRequest;
use crate::inner::Inner;
use crate::keys::KeyObject;
use crate::model::SvmRef;
use crate::records::{AccountRecord, EkmipClientCaRecord, keys_prefix};
use crate::settings::{CertificateTemplate, Settings};
use crate::x509::Facts;
use crate::{Code, Error, Manager, Result};
use keystead_store::Range;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use keystead_awskms::{can_be_fips as tls_can_be_fips, is_fips as tls_is_fips, tls_provider};

/// Says from the attributes of a key what FIPS mode would refuse of it.
pub type KeyCheck = Arc<dyn Fn(&[u8]) -> Option<String> + Send + Sync>;

/// How many keys are read at a time.
const PAGE: usize = 1_000;
/// How many things of a kind are listed one by one.
const LISTED: usize = 100;
/// How many of them an error names.
const NAMED: usize = 5;

/// What exists that FIPS mode would refuse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FipsReport {
    /// Certificates, CAs of clients, and the template of EKMIP certificates.
    pub certificates: Vec<FipsFinding>,
    /// Keys of SVMs; at most a hundred of them.
    pub keys: Vec<FipsFinding>,
    /// How many keys there are in all.
    pub keys_in_all: usize,
    /// Accounts.
    pub accounts: Vec<FipsFinding>,
    /// Connections to this node that are open, and whose clients offer nothing that FIPS mode agrees upon: they would not come back.
    pub connections: Vec<FipsFinding>,
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FipsFinding {
    /// Where it stands in the API, or its identifier.
    pub what: String,
    /// The SVM that it belongs to.
    pub svm: Option<SvmRef>,
    /// What is wrong with it.
    pub reason: String,
}

impl FipsReport {
    /// Whether nothing would be refused.
    pub fn is_clean(&self) -> bool {
        self.certificates.is_empty() && self.keys_in_all == 0 && self.accounts.is_empty() && self.connections.is_empty()
    }

    /// # Errors
    /// 52559974, with the first of each kind, unless nothing would be refused.
    pub fn refuse(&self) -> Result<()> {
        if self.is_clean() {
            return Ok(());
        }
        let text = |kind: &str, findings: &[FipsFinding], count: usize| {
            let named: Vec<String> = findings.iter().take(NAMED).map(|finding| format!("{}: {}", finding.what, finding.reason)).collect();
            let more = if count > named.len() { format!("; and {} more", count - named.len()) } else { String::new() };
            (count > 0).then(|| format!("{count} {kind} ({}{more})", named.join("; ")))
        };
        let kinds = [
            text("certificates", &self.certificates, self.certificates.len()),
            text("keys", &self.keys, self.keys_in_all),
            text("accounts", &self.accounts, self.accounts.len()),
            text("groups of connections", &self.connections, self.connections.len()),
        ];
        let all = kinds.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let message = format!("{all}. GET /security?fields=keystead.fips_report lists them; PATCH /security with keystead.force turns it on nevertheless");
        Err(Error::with(Code::FipsRefused, message).target("fips.enabled"))
    }
}

/// Whether FIPS mode is on, as this node goes by it.
#[derive(Default)]
pub(crate) struct FipsMode {
    on: AtomicBool,
    turned_on: Mutex<CancellationToken>,
    /// Open connections whose clients cannot agree with FIPS mode, by SVM; none: of the REST API.
    unable: Mutex<BTreeMap<Option<Uuid>, usize>>,
}

/// Counts a connection while it is held.
pub struct Unable {
    inner: Arc<Inner>,
    svm: Option<Uuid>,
}

impl Drop for Unable {
    fn drop(&mut self) {
        self.inner.fips.count(self.svm, |count| count.saturating_sub(1));
    }
}

impl FipsMode {
    /// Answers whether that is a change.
    fn set(&self, on: bool) -> bool {
        let mut turned_on = self.turned_on.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.on.swap(on, Ordering::AcqRel);
        if on {
            turned_on.cancel();
        } else if before {
            *turned_on = CancellationToken::new();
        }
        before != on
    }

    fn count(&self, svm: Option<Uuid>, change: impl FnOnce(usize) -> usize) {
        let mut unable = self.unable.lock().unwrap_or_else(PoisonError::into_inner);
        let count = change(unable.get(&svm).copied().unwrap_or_default());
        if count == 0 {
            unable.remove(&svm)
        } else {
            unable.insert(svm, count)
        };
    }

    fn turned_on(&self) -> CancellationToken {
        self.turned_on.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Manager {
    /// Whether FIPS mode is on. Costs nothing.
    pub fn fips(&self) -> bool {
        self.inner().fips.on.load(Ordering::Acquire)
    }

    /// Is cancelled when FIPS mode is turned on; already, where it is on. For connections that it would not have agreed upon.
    pub fn fips_turned_on(&self) -> CancellationToken {
        self.inner().fips.turned_on()
    }

    /// Counts an open connection whose client offers nothing that FIPS mode agrees upon, for the report. `svm`: none for the REST API.
    pub fn fips_unable(&self, svm: Option<Uuid>) -> Unable {
        self.inner().fips.count(svm, |count| count.saturating_add(1));
        Unable { inner: Arc::clone(self.inner()), svm }
    }

    /// Looks through all that FIPS mode would refuse. Reads the records of all keys.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn fips_report(&self) -> Result<FipsReport> {
        let inner = self.inner();
        let mut report = FipsReport { certificates: self.weak_certificates(), ..FipsReport::default() };
        report.certificates.extend(weak_template(&inner.settings().certificate));
        report.accounts = inner.view.all::<AccountRecord>().into_iter().filter_map(|account| weak_account(&account.record)).collect();
        report.connections = self.unable_peers();
        let _turn = inner.scans.acquire().await.map_err(Error::unexpected)?;
        for svm in self.svms() {
            let owner = SvmRef { uuid: svm.uuid, name: svm.name };
            weak_keys(inner, &owner, &mut report).await?;
        }
        Ok(report)
    }

    fn unable_peers(&self) -> Vec<FipsFinding> {
        let inner = self.inner();
        let unable = inner.fips.unable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let finding = |(svm, count): (Option<Uuid>, usize)| {
            let svm = svm.map(|svm| inner.svm_ref(svm));
            let what = match &svm {
                Some(svm) => format!("{count} KMIP connections of the SVM {} to the node {}", svm.name, inner.node.name),
                None => format!("{count} REST connections to the node {}", inner.node.name),
            };
            let reason = "their clients offer no TLS that FIPS mode agrees upon: no AES-GCM, or neither P-256 nor P-384".to_owned();
            FipsFinding { what, svm, reason }
        };
        unable.into_iter().map(finding).collect()
    }

    fn weak_certificates(&self) -> Vec<FipsFinding> {
        let inner = self.inner();
        let mut found: Vec<FipsFinding> = Vec::new();
        for certificate in self.certificates() {
            let between = certificate.intermediates.iter().filter_map(|pem| Facts::of_pem(pem).ok()).find_map(|(_, facts)| facts.weakness());
            if let Some(weak) = certificate.facts.weakness().or(between) {
                let what = format!("/security/certificates/{} ({})", certificate.uuid, certificate.name);
                found.push(FipsFinding { what, svm: certificate.svm, reason: weak.to_string() });
            }
        }
        for ca in inner.view.all::<EkmipClientCaRecord>().into_iter().map(|ca| ca.record) {
            if let Some(weak) = Facts::of_pem(&ca.certificate).ok().and_then(|(_, facts)| facts.weakness()) {
                let what = format!("/security/ekmip/client-cas/{} ({})", ca.uuid, ca.subject);
                found.push(FipsFinding { what, svm: Some(inner.svm_ref(ca.svm)), reason: weak.to_string() });
            }
        }
        found
    }
}

impl Inner {
    /// Applies the settings as they are now, to all that does not look at them by itself.
    pub fn apply_settings(&self) {
        self.configure_aws();
        let settings = self.settings();
        self.presence.limit_view_age(settings.max_view_age);
        let fips = settings.fips;
        self.aws.environment().set_fips(fips);
        if self.fips.set(fips) {
            // Their connections were agreed upon before.
            self.aws.forget_all();
            tracing::info!(fips, "FIPS mode");
        }
    }
}

/// Applies changes of the settings, on whichever node they were made.
pub(crate) async fn follow(inner: Arc<Inner>, stop: CancellationToken) {
    let mut changes = inner.view.changes();
    let mut known = None;
    loop {
        let now = inner.view.only::<Settings>().map(|stored| stored.revision).ok();
        if now != known {
            known = now;
            inner.apply_settings();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

fn weak_template(template: &CertificateTemplate) -> Option<FipsFinding> {
    let request = CertificateRequest {
        kind: template.kind.clone(),
        key_type: template.key_type.clone(),
        key_size: template.key_size,
        hash_function: template.hash_function.clone(),
        expiry_time: template.expiry_time.clone(),
        ..CertificateRequest::default()
    };
    let error = request.check(true).err().filter(|error| [3_735_664, 3_735_665].contains(&error.code()))?;
    Some(FipsFinding { what: "ekmip.certificate of /security/ekmip/settings".to_owned(), svm: None, reason: error.to_string() })
}

/// Passwords are kept as argon2id. That is no function of FIPS, but none that FIPS mode refuses either: nobody could log in. Anything else, from wherever it comes, is named.
fn weak_account(account: &AccountRecord) -> Option<FipsFinding> {
    let good = account.password_hash.is_empty() || account.password_hash.starts_with("$argon2id$");
    (!good).then(|| FipsFinding {
        what: format!("the account {}", account.name),
        svm: None,
        reason: "its password is kept in an old form; set it anew".to_owned(),
    })
}

async fn weak_keys(inner: &Inner, svm: &SvmRef, report: &mut FipsReport) -> Result<()> {
    let mut range = Range::prefix(keys_prefix(svm.uuid), PAGE);
    loop {
        let page = inner.store.range(range.clone()).await.map_err(Error::from)?;
        range.after = page.entries.last().map(|entry| entry.key.clone());
        for entry in page.entries {
            let Some(id) = entry.key.rsplit('/').next().and_then(|id| id.parse::<Uuid>().ok()) else { continue };
            // One that is damaged is another's business.
            let Ok(object) = KeyObject::decode(id, false, entry.revision, entry.value) else { continue };
            let Some(reason) = (inner.fips_check)(object.attributes()) else { continue };
            report.keys_in_all += 1;
            if report.keys.len() < LISTED {
                report.keys.push(FipsFinding { what: format!("key {id} of the SVM {}", svm.name), svm: Some(svm.clone()), reason });
            }
        }
        if !page.more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_tells_connections_once_it_is_turned_on() {
        let mode = FipsMode::default();
        let before = mode.turned_on();
        assert!(!mode.set(false) && !before.is_cancelled());
        assert!(mode.set(true) && before.is_cancelled() && mode.turned_on().is_cancelled() && !mode.set(true));
        assert!(mode.set(false) && !mode.turned_on().is_cancelled());
    }

    #[test]
    fn templates_and_accounts_are_looked_at() {
        let template = CertificateTemplate::default();
        assert_eq!(weak_template(&template), None);
        assert!(weak_template(&CertificateTemplate { hash_function: "sha1".into(), ..template.clone() }).is_some());
        assert!(weak_template(&CertificateTemplate { key_type: "rsa".into(), key_size: 1024, ..template.clone() }).is_some());
        assert_eq!(weak_template(&CertificateTemplate { key_size: 111, ..template }), None, "bad in any mode");
        let account = |hash: &str| AccountRecord::first(hash.into());
        assert!(weak_account(&account("$argon2id$v=19$x")).is_none() && weak_account(&account("$1$md5")).is_some());
    }

    #[test]
    fn a_refusal_names_some_and_counts_all() {
        assert!(FipsReport::default().refuse().is_ok());
        let finding = |name: usize| FipsFinding { what: format!("k{name}"), svm: None, reason: "3DES".into() };
        let report = FipsReport { keys: (0..9).map(finding).collect(), keys_in_all: 20, ..FipsReport::default() };
        let error = report.refuse().unwrap_err();
        assert!(error.message.contains("20 keys (k0: 3DES;") && error.message.contains("and 15 more"), "{error}");
    }
}
