//! What a call of the REST API has done that a restore undoes, as far as its record in the audit log tells.

use super::Inventory;
use super::restore::TOLD;
use super::words::Told;
use crate::records::{
    AccountRecord, AwsKmsRecord, CertificateRecord, EkmipClientCaRecord, EkmipClientRecord, OnboardRecord, Record, SvmRecord, account_key, key,
};
use keystead_audit::{Given, Named};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// A call, of a record.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Method and path; or, of what a node or the operator of a machine has done, words.
    pub input: String,
    /// What it was about.
    pub object: Option<Uuid>,
    pub svm: Option<Named>,
    pub fields: Vec<Given>,
    /// The job that went on with it.
    pub job: Option<Uuid>,
    /// When, and by whom.
    pub when: String,
    /// Whether it was shortly before the backup, which may have it.
    pub is_early: bool,
}

/// What a restore does to what a call has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// This, in words, comes back.
    Alive(String),
    /// It is lost.
    Lost,
    /// Nothing: it has changed nothing that is kept.
    Nothing,
}

impl Call {
    /// Method and path, or what else it was; when, and by whom.
    pub fn text(&self) -> String {
        let early = if self.is_early { "; shortly before the backup, which may have it" } else { "" };
        format!("{}, {}{early}", self.input, self.when)
    }

    /// What a restore does to it.
    pub fn effect(&self, inventory: &Inventory) -> Effect {
        if self.input == TOLD {
            return Effect::Nothing;
        }
        if let Some(name) = self.input.strip_prefix("keystead account reset ") {
            let account = inventory.get::<AccountRecord>(&account_key(name));
            return account.map_or(Effect::Lost, |account| Effect::Alive(format!("{}, with the password that it had before", account.told(inventory))));
        }
        let Some((method, path)) = self.input.split_once(' ') else { return Effect::Lost };
        let Some(path) = path.split('?').next().and_then(|path| path.strip_prefix("/api/")) else { return self.by_itself(inventory) };
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = path.trim_end_matches('/').split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            // Sessions and nodes are not restored, a preflight and a restore of KEKs keep nothing, and what a job does has a record of its own.
            ["security", "ekmip", "sessions" | "preflight", ..] | ["cluster", "nodes" | "jobs", ..] | ["security", "aws-kms", _, "restore"] => Effect::Nothing,
            // What these make is kept by who has asked for it, and nowhere else.
            ["security", "certificate-signing-request"] | ["security", "certificates", _, "sign"] => Effect::Nothing,
            // By a query: each of what was found has a record of its own.
            [.., "svms" | "aws-kms" | "certificates" | "clients" | "client-cas" | "accounts" | "key-managers"] if method != "POST" => Effect::Nothing,
            parts => self.taken_away(method, parts, inventory).map_or(Effect::Lost, Effect::Alive),
        }
    }

    /// What it took away that stands in the backup.
    fn taken_away(&self, method: &str, parts: &[&str], inventory: &Inventory) -> Option<String> {
        let named = |id: &str| id.parse::<Uuid>().ok().or(self.object);
        let before = |what: &str| Some(what.to_owned());
        match (method, parts) {
            ("DELETE", ["security", "ekmip", "clients", id]) => {
                known::<EkmipClientRecord>(inventory, named(id)?).filter(|client| client.revoked.is_none()).map(|client| client.told(inventory))
            }
            ("DELETE", ["security", "ekmip", "client-cas", id]) => told::<EkmipClientCaRecord>(inventory, named(id)?),
            ("DELETE", ["security", "certificates", id]) => told::<CertificateRecord>(inventory, named(id)?),
            ("DELETE", ["svm", "svms", id]) => told::<SvmRecord>(inventory, named(id)?),
            ("PATCH", ["svm", "svms", id]) => told::<SvmRecord>(inventory, named(id)?).map(|svm| format!("{svm}, with its name and comment of then")),
            ("DELETE", ["security", "aws-kms", id]) => told::<AwsKmsRecord>(inventory, named(id)?),
            ("PATCH", ["security", "aws-kms", id]) => {
                let config = known::<AwsKmsRecord>(inventory, named(id)?)?;
                Some(format!("the settings and credentials that AWS KMS of the SVM {} had before", inventory.svm_name(config.svm)))
            }
            ("POST", ["security", "aws-kms", id, "rekey-external"]) => {
                let config = known::<AwsKmsRecord>(inventory, named(id)?)?;
                Some(format!("the KEK of the SVM {} under the customer key that it had before, {}", inventory.svm_name(config.svm), config.settings.key_id))
            }
            ("POST", ["security", "aws-kms", id, "rekey-internal"]) => {
                let config = known::<AwsKmsRecord>(inventory, named(id)?)?;
                Some(format!("the KEK of the SVM {} that was replaced", inventory.svm_name(config.svm)))
            }
            ("DELETE", ["security", "key-managers", id]) => {
                onboard(inventory).filter(|record| named(id) == Some(record.uuid)).map(|record| record.told(inventory))
            }
            ("PATCH", ["security", "key-managers", _]) => onboard(inventory).and_then(|_| before("the passphrase that the onboard key manager had before")),
            ("POST", ["security", "key-managers", _, "migrate"]) => {
                let svm = self.svm.as_ref().map_or("that it was about", |svm| svm.name.as_str());
                Some(format!("the keys of the SVM {svm} at the key manager that they had before"))
            }
            ("DELETE" | "PATCH", ["security", "accounts", _, name]) => {
                let account = inventory.get::<AccountRecord>(&account_key(name))?;
                Some(format!("{} as it was before, with its password then", account.told(inventory)))
            }
            ("POST", ["security", "authentication", "password"]) => before("the password that an account had before"),
            ("PATCH", ["security"] | ["security", "ekmip", "settings"]) => {
                Some(format!("the settings of the cluster that there were before{}", self.named_fields()))
            }
            ("POST", ["security", "ekmip", "ca", "switch"]) => {
                before("the cluster's CA that was switched from: it signs again, and certificates of the one after it are believed no more")
            }
            ("POST", ["security", "ekmip", "ca", "finish"]) => before("the trust in the cluster's CA that was given up"),
            ("POST", ["security", "ekmip", "seal", "rotate"]) => before("the seal key that was replaced: all secrets are sealed with it again"),
            _ => None,
        }
    }

    /// What a node did without a call.
    fn by_itself(&self, inventory: &Inventory) -> Effect {
        match self.object.and_then(|config| known::<AwsKmsRecord>(inventory, config)) {
            Some(config) => Effect::Alive(format!("the KEK of the SVM {} as it was wrapped before", inventory.svm_name(config.svm))),
            None => Effect::Lost,
        }
    }

    fn named_fields(&self) -> String {
        let names: Vec<&str> = self.fields.iter().map(|field| field.name.as_str()).collect();
        if names.is_empty() { String::new() } else { format!(", of {}", names.join(", ")) }
    }
}

fn onboard(inventory: &Inventory) -> Option<OnboardRecord> {
    inventory.get::<OnboardRecord>(&key::<OnboardRecord>(""))
}

fn known<R: Record>(inventory: &Inventory, id: Uuid) -> Option<R> {
    inventory.get::<R>(&key::<R>(id))
}

fn told<R: Told>(inventory: &Inventory, id: Uuid) -> Option<String> {
    known::<R>(inventory, id).map(|record| record.told(inventory))
}
