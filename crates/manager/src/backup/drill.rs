//! Whether everything could be recovered from a backup: each secret opens, AWS KMS unwraps each KEK, each key unwraps under its KEK. Nothing is changed anywhere, and nothing is kept.

use super::{Backup, Inventory};
use crate::aws::{context, kek_from, made};
use crate::keys::record::{KeyObject, parse};
use crate::onboard::{opened_by, unwrapped};
use crate::records::{AuthorityRecord, AwsKmsRecord, CertificateRecord, ClusterRecord, KekRecord, OnboardKekRecord, OnboardRecord, certificate_key_place, key};
use crate::seal::Seal;
use crate::settings::Settings;
use futures_util::StreamExt as _;
use keystead_awskms::{Client, Egress, Environment};
use keystead_keyring::Kek;
use keystead_store::Revision;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// How many KEKs AWS KMS is asked for at a time.
const AT_A_TIME: usize = 16;
/// How long one waits for its turn under the rate of its account.
const TURN: Duration = Duration::from_secs(15 * 60);
/// How many keys that do not unwrap are named, of an SVM.
const NAMED: usize = 10;

/// What came of a drill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drill {
    /// Secrets that do not open, in words.
    pub secrets: Vec<String>,
    /// Each SVM with keys or a KEK, by name.
    pub svms: Vec<SvmProof>,
}

/// What came of it for an SVM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SvmProof {
    /// Its name.
    pub name: String,
    /// Each version of its KEK.
    pub keks: Vec<KekProof>,
    /// How many keys unwrap, or have no secret.
    pub proven: u64,
    /// How many do not.
    pub failed: u64,
    /// Some of those, in words.
    pub failures: Vec<String>,
}

/// A version of a KEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekProof {
    /// The version, from 1.
    pub version: u32,
    /// Who wraps it: the ARN of the customer key, or the onboard key manager.
    pub wrapped_by: String,
    /// Why it cannot be had.
    pub failure: Option<String>,
}

impl Drill {
    /// Whether everything could be recovered.
    pub fn is_good(&self) -> bool {
        self.secrets.is_empty() && self.svms.iter().all(|svm| svm.failed == 0 && svm.keks.iter().all(|kek| kek.failure.is_none()))
    }
}

/// Proves a backup. `aws` is the way to AWS KMS; without it, KEKs that AWS wraps count as not had. `progress` is told what is done, and how many of it.
///
/// # Errors
/// A line for the operator: the file cannot be read, or its seal key is not the one of its records.
pub async fn drill(backup: &Backup, inventory: &Inventory, aws: Option<&Environment>, mut progress: impl FnMut(&str, u64)) -> Result<Drill, String> {
    let text = |error: crate::Error| error.detail.unwrap_or(error.message);
    let seal = inventory.seal().await?;
    let cluster = inventory.all::<ClusterRecord>().next().ok_or("there is no cluster in it")?.map_err(text)?.record;
    if !seal.choose(&cluster.seal_check) {
        return Err("the seal key in the backup is not the one that its secrets were sealed with".to_owned());
    }
    if let (Some(aws), Some(settings)) = (aws, inventory.get::<Settings>(&key::<Settings>(""))) {
        aws.set_requests_per_second(settings.requests_per_second);
        aws.set_fips(settings.fips);
        aws.set_egress(Egress::parse(&settings.allow_endpoints).map_err(|error| error.to_string())?);
    }
    let mut drill = Drill { secrets: sealed(inventory, &seal), svms: Vec::new() };
    let (mut keks, mut proofs) = (BTreeMap::new(), BTreeMap::<Uuid, Vec<KekProof>>::new());
    let mut had = 0;
    let mut take = |svm: Uuid, version: u32, wrapped_by: String, kek: Result<Kek, String>| {
        let (kek, failure) = match kek {
            Ok(kek) => (Some(kek), None),
            Err(why) => (None, Some(why)),
        };
        keks.extend(kek.map(|kek| ((svm, version), kek)));
        proofs.entry(svm).or_default().push(KekProof { version, wrapped_by, failure });
        had += 1;
        progress("KEKs", had);
    };
    let onboard_key = inventory.get::<OnboardRecord>(&key::<OnboardRecord>("")).and_then(|record| opened_by(&seal, &record));
    for record in inventory.all::<OnboardKekRecord>() {
        let record = record.map_err(text)?.record;
        let kek = onboard_key.as_ref().and_then(|onboard_key| unwrapped(onboard_key, &record));
        take(record.svm, record.version, "the onboard key manager".to_owned(), kek.ok_or_else(|| "the onboard key does not open it".to_owned()));
    }
    let records: Vec<KekRecord> = inventory.all::<KekRecord>().map(|record| record.map(|record| record.record)).collect::<Result<_, _>>().map_err(text)?;
    let clients = clients(inventory, &seal, aws)?;
    let clients = &clients;
    let asked = futures_util::stream::iter(&records).map(|record| async move {
        let kek = match clients.get(&record.svm) {
            Some(client) => ask(client, record).await,
            None => Err("there is no AWS KMS configuration for it".to_owned()),
        };
        (record, kek)
    });
    let mut asked = std::pin::pin!(asked.buffer_unordered(AT_A_TIME));
    while let Some((record, kek)) = asked.next().await {
        take(record.svm, record.version, record.key_arn.clone(), kek);
    }
    let svms = unwrap_keys(backup, &keks, |done| progress("keys", done))?;
    let mut all: BTreeMap<Uuid, SvmProof> = svms;
    for (svm, mut proof) in proofs {
        proof.sort_by_key(|kek| kek.version);
        all.entry(svm).or_default().keks = proof;
    }
    drill.svms = all.into_iter().map(|(svm, proof)| SvmProof { name: inventory.svm_name(svm), ..proof }).collect();
    drill.svms.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(drill)
}

/// Secrets that do not open.
fn sealed(inventory: &Inventory, seal: &Seal) -> Vec<String> {
    let mut failures = Vec::new();
    let mut look = |what: String, opened: crate::Result<()>| {
        if let Err(error) = opened {
            failures.push(format!("{what}: {}", error.detail.unwrap_or(error.message)));
        }
    };
    for authority in inventory.all::<AuthorityRecord>() {
        let opened = authority.and_then(|authority| seal.open_text(crate::cluster::AUTHORITY_PLACE, &authority.record.private_key));
        look("the private key of the cluster's CA".to_owned(), opened.map(drop));
    }
    for certificate in inventory.all::<CertificateRecord>() {
        let opened = certificate.and_then(|stored| {
            let record = stored.record;
            record.private_key.map(|sealed| seal.open_bytes(&certificate_key_place(record.uuid), &sealed).map(drop)).transpose()
        });
        look("the private key of a certificate".to_owned(), opened.map(drop));
    }
    if let Some(onboard) = inventory.get::<OnboardRecord>(&key::<OnboardRecord>(""))
        && opened_by(seal, &onboard).is_none()
    {
        failures.push("the onboard key: the seal key does not open it; the cluster passphrase may".to_owned());
    }
    failures
}

/// A client for each SVM with AWS KMS; none without a way to AWS.
fn clients(inventory: &Inventory, seal: &Seal, aws: Option<&Environment>) -> Result<BTreeMap<Uuid, Result<Client, String>>, String> {
    let text = |error: crate::Error| error.detail.unwrap_or(error.message);
    let mut clients = BTreeMap::new();
    for config in inventory.all::<AwsKmsRecord>() {
        let config = config.map_err(text)?.record;
        let client = match aws {
            Some(aws) => made(aws, seal, &config, Client::new).map_err(text),
            None => Err("AWS KMS was not asked".to_owned()),
        };
        clients.insert(config.svm, client);
    }
    Ok(clients)
}

/// Has AWS KMS unwrap a KEK, and looks whether it is that KEK.
async fn ask(client: &Result<Client, String>, record: &KekRecord) -> Result<Kek, String> {
    let client = client.as_ref().map_err(Clone::clone)?;
    let context = context(record.encryption_context.as_deref()).map_err(|error| error.message)?;
    client.turn(TURN).await.map_err(|error| error.to_string())?;
    let mut decrypted = client.decrypt(&record.key_arn, &record.blob.0, &context).await.map_err(|error| error.to_string())?;
    kek_from(record, &mut decrypted.plaintext).ok_or_else(|| "AWS KMS has answered with another KEK".to_owned())
}

/// Unwraps every key, and forgets it at once.
fn unwrap_keys(backup: &Backup, keks: &BTreeMap<(Uuid, u32), Kek>, mut progress: impl FnMut(u64)) -> Result<BTreeMap<Uuid, SvmProof>, String> {
    let failed = |error: std::io::Error| format!("the backup cannot be read: {error}");
    let (_, mut reader) = backup.read().map_err(failed)?;
    let (mut svms, mut done) = (BTreeMap::<Uuid, SvmProof>::new(), 0);
    while let Some(kept) = reader.next().map_err(failed)? {
        let Some((svm, id, false)) = parse(&kept.key) else { continue };
        let object = KeyObject::decode(id, false, Revision(0), kept.value.into());
        let unwrapped = object.map_err(|error| error.detail.unwrap_or(error.message)).and_then(|object| {
            if object.kek_version == 0 {
                return Ok(());
            }
            let kek = keks.get(&(svm, object.kek_version)).ok_or_else(|| format!("version {} of the KEK cannot be had", object.kek_version))?;
            kek.unwrap_key(&id.to_string(), object.wrapped()).map(drop).map_err(|error| error.to_string())
        });
        let proof = svms.entry(svm).or_default();
        match unwrapped {
            Ok(()) => proof.proven += 1,
            Err(why) => {
                proof.failed += 1;
                if proof.failures.len() < NAMED {
                    proof.failures.push(format!("{id}: {why}"));
                }
            }
        }
        done += 1;
        progress(done);
    }
    Ok(svms)
}
