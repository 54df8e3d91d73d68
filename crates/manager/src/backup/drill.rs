//! Whether everything could be recovered from a backup: each secret opens, AWS KMS unwraps each KEK, each key unwraps under its KEK. Nothing is changed anywhere, and nothing is kept.

use super::{Backup, Inventory};
use crate::aws::{context, kek_from, made};
use crate::keys::record::{KeyObject, parse};
use crate::onboard::{opened_by, unwrapped};
use crate::records::{
    AccountRecord, AuthorityRecord, AwsKmsRecord, CertificateRecord, ClusterRecord, EkmipClientCaRecord, EkmipClientRecord, JobRecord, KekRecord,
    KeyStoreRecord, OnboardKekRecord, OnboardRecord, Record, SvmNameRecord, SvmRecord, key,
};
use crate::seal::Seal;
use crate::sealed_records::Sealing;
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
    /// Secrets that do not open, and records that cannot be read, in words.
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
    let seal = inventory.seal().await?;
    let cluster = match inventory.all::<ClusterRecord>().next().ok_or("there is no cluster in it")? {
        Ok(cluster) => cluster.record,
        // Without it, nobody knows which seal key counts.
        Err(error) => return Ok(Drill { secrets: vec![error.for_operator()], svms: Vec::new() }),
    };
    if !seal.choose(&cluster.seal_check) {
        return Err("the seal key in the backup is not the one that its secrets were sealed with".to_owned());
    }
    if let (Some(aws), Some(settings)) = (aws, inventory.get::<Settings>(&key::<Settings>(""))) {
        aws.set_requests_per_second(settings.requests_per_second);
        aws.set_fips(settings.fips);
        aws.set_egress(Egress::parse(&settings.allow_endpoints).map_err(|error| error.to_string())?);
    }
    let mut drill = Drill { secrets: [sealed(inventory, &seal), unreadable(inventory)].concat(), svms: Vec::new() };
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
    for record in readable::<OnboardKekRecord>(inventory) {
        let kek = onboard_key.as_ref().and_then(|onboard_key| unwrapped(onboard_key, &record));
        take(record.svm, record.version, "the onboard key manager".to_owned(), kek.ok_or_else(|| "the onboard key does not open it".to_owned()));
    }
    let records: Vec<KekRecord> = readable(inventory).collect();
    let clients = &clients(inventory, &seal, aws);
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

/// Secrets that do not open. Those of nodes are not restored.
fn sealed(inventory: &Inventory, seal: &Seal) -> Vec<String> {
    let mut failures = Vec::new();
    of_kind::<AuthorityRecord>(inventory, seal, &mut failures);
    of_kind::<CertificateRecord>(inventory, seal, &mut failures);
    of_kind::<AwsKmsRecord>(inventory, seal, &mut failures);
    of_kind::<JobRecord>(inventory, seal, &mut failures);
    if let Some(onboard) = inventory.get::<OnboardRecord>(&key::<OnboardRecord>(""))
        && opened_by(seal, &onboard).is_none()
    {
        failures.push("the onboard key: the seal key does not open it; the cluster passphrase may".to_owned());
    }
    failures
}

fn of_kind<R: Sealing>(inventory: &Inventory, seal: &Seal, failures: &mut Vec<String>) {
    for mut stored in inventory.all::<R>().flatten() {
        let key = stored.key;
        for secret in stored.record.secrets(&key) {
            if let Err(error) = seal.open_bytes(&secret.place, secret.sealed) {
                failures.push(format!("{} in {key}: {}", secret.what, error.for_operator()));
            }
        }
    }
}

/// Records that a node could not read.
fn unreadable(inventory: &Inventory) -> Vec<String> {
    fn of<R: Record>(inventory: &Inventory) -> impl Iterator<Item = String> {
        inventory.all::<R>().filter_map(|record| record.err().map(crate::Error::for_operator))
    }
    let cluster = of::<Settings>(inventory).chain(of::<AuthorityRecord>(inventory)).chain(of::<AccountRecord>(inventory)).chain(of::<JobRecord>(inventory));
    let svms = of::<SvmRecord>(inventory).chain(of::<SvmNameRecord>(inventory)).chain(of::<KeyStoreRecord>(inventory));
    let keks = of::<AwsKmsRecord>(inventory).chain(of::<KekRecord>(inventory)).chain(of::<OnboardRecord>(inventory)).chain(of::<OnboardKekRecord>(inventory));
    let certificates = of::<EkmipClientRecord>(inventory).chain(of::<EkmipClientCaRecord>(inventory)).chain(of::<CertificateRecord>(inventory));
    cluster.chain(svms).chain(keks).chain(certificates).collect()
}

/// The records of a kind that can be read.
fn readable<R: Record>(inventory: &Inventory) -> impl Iterator<Item = R> {
    inventory.all::<R>().flatten().map(|stored| stored.record)
}

/// A client for each SVM with AWS KMS; none without a way to AWS.
fn clients(inventory: &Inventory, seal: &Seal, aws: Option<&Environment>) -> BTreeMap<Uuid, Result<Client, String>> {
    let client = |config: &AwsKmsRecord| match aws {
        Some(aws) => made(aws, seal, config, Client::new).map_err(crate::Error::for_operator),
        None => Err("AWS KMS was not asked".to_owned()),
    };
    readable::<AwsKmsRecord>(inventory).map(|config| (config.svm, client(&config))).collect()
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
        let unwrapped = object.map_err(crate::Error::for_operator).and_then(|object| {
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

#[cfg(test)]
mod tests {
    use super::super::testing::backup_of;
    use super::*;
    use crate::backup::inventory;
    use crate::cluster::{AUTHORITY_PLACE, NEXT_AUTHORITY_PLACE, seal_check};
    use crate::records::{proxy_password_place, secret_place};
    use crate::seal::seal_with;
    use keystead_keyring::SealKey;
    use serde_json::{Value, json};

    const CONFIG: Uuid = Uuid::from_u128(0xc0);

    /// What cannot be recovered where some of the secrets were sealed with another key, and these records stand there as well.
    async fn failures(other: &[&str], more: Vec<(String, Vec<u8>)>) -> Vec<String> {
        // That of all backups here.
        let keys = [7u8, 8].map(|byte| SealKey::take(&mut [byte; 32]).unwrap());
        let seal = |name: &str, place: &str| seal_with(&keys[usize::from(other.contains(&name))], place, b"secret");
        let record = |key: String, value: Value| (key, value.to_string().into_bytes());
        let settings = json!({
            "region": "eu-west-1", "key_id": "k", "access_key_id": "a", "encryption_context": null, "service": "kms", "default_domain": "amazonaws.com", "host": null,
            "port": 443, "polling_period": 60, "timeout": 10, "verify": true, "verify_host": true, "verify_ip": true, "proxy": null
        });
        let job = |id: u128, kind: Value, state: &str| {
            let value = json!({
                "uuid": Uuid::from_u128(id), "kind": kind, "description": "", "account": "admin", "state": state, "message": "", "error": null,
                "start_time": "2026-01-01T00:00:00Z", "end_time": null, "node": null, "svm": null
            });
            record(format!("/jobs/{}", Uuid::from_u128(id)), value)
        };
        let secret = |name: &str| seal(name, &secret_place(CONFIG));
        let change = |name: &str| json!({ "type": "modify", "config": CONFIG, "change": { "secret_access_key": secret(name) } });
        let authority = json!({
            "certificate": "", "private_key": seal("ca", AUTHORITY_PLACE), "next": { "certificate": "", "private_key": seal("next", NEXT_AUTHORITY_PLACE) }
        });
        let config = json!({
            "uuid": CONFIG, "svm": CONFIG, "settings": settings, "secret_access_key": secret("secret"), "proxy_password": seal("proxy", &proxy_password_place(CONFIG))
        });
        let cluster = json!({ "uuid": CONFIG, "admin_svm": CONFIG, "seal_check": seal_check(&keys[0]), "created": "2026-01-01T00:00:00Z" });
        let mut records = vec![
            record("/cluster".to_owned(), cluster),
            record("/certificate-authority".to_owned(), authority),
            record(format!("/aws-kms/{CONFIG}"), config),
            job(1, change("open job"), "queued"),
            job(2, change("ended job"), "success"),
        ];
        records.extend(more);
        let backup = backup_of(records);
        let inventory = inventory(&backup, |_| {}).unwrap();
        let drill = drill(&backup, &inventory, None, |_, _| {}).await.unwrap();
        assert_eq!(drill.is_good(), drill.secrets.is_empty());
        drill.secrets
    }

    #[tokio::test]
    async fn each_secret_must_open_also_without_aws() {
        assert_eq!(failures(&[], vec![]).await, [""; 0]);
        for (name, what) in [
            ("ca", "the private key of the cluster's CA in /certificate-authority"),
            ("next", "the private key of the cluster's next CA"),
            ("secret", "the secret access key in /aws-kms/"),
            ("proxy", "the password of the proxy in /aws-kms/"),
            ("open job", "the secret access key in /jobs/"),
        ] {
            let failures = failures(&[name], vec![]).await;
            assert!(failures.len() == 1 && failures[0].starts_with(what), "{name}: {failures:?}");
        }
        assert_eq!(failures(&["ended job"], vec![]).await, [""; 0], "nobody needs it any more");
    }

    #[tokio::test]
    async fn a_damaged_record_is_a_line_of_its_own() {
        for key in ["/svms/1", "/keks/1/1", "/onboard-keys/1/1", "/aws-kms/1", "/jobs/x", "/settings", "/accounts/admin", "/onboard-key-manager"] {
            let failures = failures(&[], vec![(key.to_owned(), b"{".to_vec())]).await;
            assert!(failures.len() == 1 && failures[0].contains(&format!("the record {key} of the store is damaged")), "{key}: {failures:?}");
        }
        let backup = backup_of(vec![("/cluster".to_owned(), b"{".to_vec())]);
        let inventory = inventory(&backup, |_| {}).unwrap();
        assert!(!drill(&backup, &inventory, None, |_, _| {}).await.unwrap().is_good());
    }
}
