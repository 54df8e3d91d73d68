//! The catalogue: every message that an event can be of. Names of ONTAP's where it has one for the same thing, else under `keystead.`.

use serde::{Deserialize, Serialize};

/// How bad it is, in ONTAP's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing works.
    Emergency,
    /// Somebody must act at once: data is out of reach, or will be.
    Alert,
    /// Something is broken; what depends on it still works.
    Error,
    /// Normal, and worth knowing.
    Notice,
    /// For completeness.
    Informational,
    /// For developers.
    Debug,
}

impl Severity {
    /// ONTAP's word.
    pub fn text(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Alert => "alert",
            Self::Error => "error",
            Self::Notice => "notice",
            Self::Informational => "informational",
            Self::Debug => "debug",
        }
    }
}

/// A kind of event.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The name, in dots.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What has happened, in a few words: the beginning of the text of each such event.
    pub summary: &'static str,
    /// When it is raised, and what it means.
    pub description: &'static str,
    /// What to do.
    pub corrective_action: &'static str,
}

/// The KEK can be had again.
pub static AVAILABLE: Message = Message {
    name: "ekmip.awskms.available",
    severity: Severity::Notice,
    summary: "AWS KMS gives the key again",
    description: "AWS KMS has unwrapped the KEK of the SVM for this node, after ekmip.awskms.notAvailable or ekmip.awskms.volOffline.",
    corrective_action: "(NONE).",
};

/// The first poll that was not ok.
pub static NOT_AVAILABLE: Message = Message {
    name: "ekmip.awskms.notAvailable",
    severity: Severity::Error,
    summary: "AWS KMS does not give the key",
    description: "The first poll that was not ok: this node could not reach AWS KMS, or AWS KMS refused to unwrap the KEK of the SVM. A node that had the KEK still serves the keys of the SVM; a node \
                  that could not load it since it was started does not. An outage alone never takes keys away, unless the SVM has asked for that with max_unverified; a denial does, after the grace.",
    corrective_action: "Look at the parameters reason, aws_error and hop. Check that the customer key is enabled, that the IAM user may use it, and that this node reaches the endpoint. No action is needed \
                        in Keystead once the cause is gone: the next poll brings ekmip.awskms.available.",
};

/// The customer key that wraps the KEK is another one.
pub static KEY_CHANGED: Message = Message {
    name: "ekmip.awskms.keyChg",
    severity: Severity::Notice,
    summary: "the KEK is wrapped by another customer key",
    description: "The KEK of the SVM is wrapped by another customer key of AWS KMS from now on; the parameters name the old one and the new one. The keys of the SVM were not changed.",
    corrective_action: "If nobody meant to change the key, look at the jobs of the cluster and at AWS CloudTrail. Keep the old customer key as long as backups of the store are kept.",
};

/// The customer key is the same, its material is new.
pub static KEY_VERSION_CHANGED: Message = Message {
    name: "ekmip.awskms.keyVersionChg",
    severity: Severity::Notice,
    summary: "the KEK is wrapped under new material of the customer key",
    description: "The customer key was rotated in AWS KMS, and the KEK of the SVM is wrapped under its new key material from now on. The keys of the SVM were not changed.",
    corrective_action: "(NONE).",
};

/// The SVM is blocked on this node.
pub static OFFLINE: Message = Message {
    name: "ekmip.awskms.volOffline",
    severity: Severity::Alert,
    summary: "the keys of the SVM are refused",
    description: "This node has wiped the KEK of the SVM and refuses its keys: AWS KMS denies the customer key and the grace is over, or there was no good poll for max_unverified. Volumes that need \
                  a key from here cannot come online. Keys that clients hold already cannot be called back.",
    corrective_action: "If the key was revoked on purpose: (NONE). Otherwise enable the customer key in AWS KMS, or give the IAM user its permissions back; a deletion that is only scheduled can be \
                        cancelled. The next good poll serves the keys again, without further help.",
};

/// The keys of the SVM are served again.
pub static ONLINE: Message = Message {
    name: "ekmip.awskms.volOnline",
    severity: Severity::Notice,
    summary: "the keys of the SVM are served again",
    description: "This node has the KEK of the SVM again, after ekmip.awskms.volOffline, and serves its keys.",
    corrective_action: "Bring volumes online that had gone offline.",
};

/// The cluster was restored from a backup.
pub static RESTORED: Message = Message {
    name: "keystead.cluster.restored",
    severity: Severity::Alert,
    summary: "the cluster was restored from a backup",
    description: "The store of the cluster was filled from a backup. What was destroyed, revoked or changed after the moment of the backup is as it was then, and what was made after it is lost. The \
                  parameter backup has that moment. Raised by the first node that started after it.",
    corrective_action: "If nobody meant to restore the cluster, stop the nodes, and find out who has. Otherwise destroy and revoke again what should not have come back: keystead restore has listed it.",
};

/// The syslog collector takes nothing.
pub static AUDIT_COLLECTOR_AWAY: Message = Message {
    name: "keystead.audit.collectorAway",
    severity: Severity::Error,
    summary: "the syslog collector takes no audit records",
    description: "The node cannot bring its audit records to the collector of [audit.syslog]. They stay in the audit log, and are sent in order when the collector is back, as far as the log still has them \
                  then.",
    corrective_action: "Look at the parameter reason. Check the address, the collector, the way to it and, with tls, its certificate.",
};

/// The syslog collector takes records again.
pub static AUDIT_COLLECTOR_BACK: Message = Message {
    name: "keystead.audit.collectorBack",
    severity: Severity::Notice,
    summary: "the syslog collector takes audit records again",
    description: "The node brings its audit records to the collector again, beginning with those that it had missed.",
    corrective_action: "(NONE).",
};

/// The audit log takes nothing.
pub static AUDIT_NOT_WRITABLE: Message = Message {
    name: "keystead.audit.notWritable",
    severity: Severity::Alert,
    summary: "the audit log cannot be written",
    description: "The disk takes no audit records. What changes something is refused by this node; keys are handed out, and counted in memory, unless [audit] strict refuses that too.",
    corrective_action: "Look at the parameter reason. Make room on the disk of the data folder, or repair it. The node goes on by itself; how many records were lost stands in the audit log then.",
};

/// The audit log can be written again.
pub static AUDIT_WRITABLE: Message = Message {
    name: "keystead.audit.writable",
    severity: Severity::Notice,
    summary: "the audit log can be written again",
    description: "The disk takes audit records again, after keystead.audit.notWritable, and this node changes things again.",
    corrective_action: "Look whether records were lost: GET /security/audit/messages?input=audit*.",
};

/// Someone changed something in AWS.
pub static MISCONFIGURED: Message = Message {
    name: "keystead.awskms.misconfigured",
    severity: Severity::Alert,
    summary: "AWS KMS finds fault with the request",
    description: "AWS KMS answers a poll with an error of signature, validation or key usage, or the configuration makes no client. A set-up that has worked does not come to this by itself: someone has \
                  changed the key, the credentials or the endpoint. Keys are still served.",
    corrective_action: "Find out what was changed, in AWS CloudTrail and in the configuration of the SVM, and correct it with PATCH /security/aws-kms. Check the clock of this node.",
};

/// AWS does not give back what it was given.
pub static INTEGRITY: Message = Message {
    name: "keystead.awskms.integrity",
    severity: Severity::Alert,
    summary: "the wrapped KEK does not unwrap to the KEK",
    description: "AWS KMS cannot unwrap what is stored, it has answered with another KEK than the one in use, or the wrapped KEK is missing from the store. Nodes that have the KEK in memory still serve \
                  keys; a node that is started now cannot.",
    corrective_action: "Do not restart nodes. Check the encryption context and the endpoint of the configuration, and whether the store was restored from a backup. rekey-internal does not help: \
                        it must unwrap the stored KEK first. As long as a node has the KEK, copy the keys into another SVM with keystead ekmip import; then restore a backup whose drill is good.",
};

/// A denial is confirmed.
pub static REVOKING: Message = Message {
    name: "keystead.awskms.revoking",
    severity: Severity::Alert,
    summary: "AWS KMS denies the customer key, and the grace runs",
    description: "Two polls have confirmed that AWS KMS denies the customer key. Keys are still served; when the grace is over (parameter until), they are refused.",
    corrective_action: "If the key was revoked on purpose: (NONE). Otherwise enable the customer key, or give the IAM user its permissions back, before the grace is over.",
};

/// An automatic wrapping has failed.
pub static REWRAP_FAILED: Message = Message {
    name: "keystead.awskms.rewrapFailed",
    severity: Severity::Error,
    summary: "the KEK could not be wrapped under the new material of the customer key",
    description: "The customer key was rotated in AWS KMS, and the KEK of the SVM could not be wrapped again under the new key material. It stays wrapped under the old, which AWS KMS still unwraps. \
                  It is tried again.",
    corrective_action: "Check that the IAM user has kms:Encrypt. If it goes on, use POST /security/aws-kms/{uuid}/rekey-external with the same key_id.",
};

/// AWS wants fewer requests.
pub static THROTTLED: Message = Message {
    name: "keystead.awskms.throttled",
    severity: Severity::Notice,
    summary: "AWS KMS throttles this node",
    description: "AWS KMS still refused a poll for too many requests after it was repeated. Keys are served as before.",
    corrective_action: "Ask AWS for a higher quota, lower requests_per_second, or make polling_period longer.",
};

/// The certificate of a node's EKMIP server ends, and there is no new one.
pub static CERTIFICATE_EXPIRING: Message = Message {
    name: "keystead.ekmip.certificateExpiring",
    severity: Severity::Error,
    summary: "the certificate of the EKMIP server could not be renewed, or not made as configured",
    description: "A node makes the certificate of its EKMIP server anew before it ends, from the template ekmip.certificate of the settings. That has failed; the old one is shown to clients until then. \
                  Told when it has failed first, and again when 30 days, 7 days, a day, and nothing are left. When it has ended, clients that check it do not connect.",
    corrective_action: "Look at the parameter reason: most often, the template asks for what is not supported, or is refused in FIPS mode. Correct it with PATCH /security/ekmip/settings; the renewal is tried \
                        again by itself.",
};

/// The certificate of a node's EKMIP server is a new one.
pub static CERTIFICATE_RENEWED: Message = Message {
    name: "keystead.ekmip.certificateRenewed",
    severity: Severity::Notice,
    summary: "the EKMIP server has a new certificate",
    description: "The certificate of the node's EKMIP server came near its end, or was not for all names of the node, and was made anew. The same CA has signed it; connections that are open stay.",
    corrective_action: "(NONE).",
};

/// The certificate of a node's REST API ends, and there is no new one.
pub static REST_CERTIFICATE_EXPIRING: Message = Message {
    name: "keystead.rest.certificateExpiring",
    severity: Severity::Error,
    summary: "the certificate of the REST API could not be renewed",
    description: "A node makes the certificate of its REST API anew each month. That has failed; the old one is shown until then. Told when it has failed first, and again when 30 days, 7 days, a day, and \
                  nothing are left. When it has ended, clients that check it do not connect.",
    corrective_action: "Look at the parameter reason. The renewal is tried again by itself, and a restart makes a new certificate.",
};

/// The certificate of a node's REST API is a new one.
pub static REST_CERTIFICATE_RENEWED: Message = Message {
    name: "keystead.rest.certificateRenewed",
    severity: Severity::Notice,
    summary: "the REST API has a new certificate",
    description: "The certificate of the node's REST API was a month old, and was made anew. The same CA has signed it; connections that are open stay.",
    corrective_action: "(NONE).",
};

/// A certificate of `/security/certificates` ends soon.
pub static SECURITY_CERTIFICATE_EXPIRING: Message = Message {
    name: "keystead.security.certificateExpiring",
    severity: Severity::Error,
    summary: "a certificate ends soon, or has ended",
    description: "A certificate of /security/certificates ends within 30 days, within 7 days, within a day, or has ended. Each of the four is told once.",
    corrective_action: "Make or install a new one with POST /security/certificates, bring it to where it is used, and delete the old one. The cluster's own CA (keystead_cluster_ca) lives for 20 years, and \
                        nothing that it signs outlives it; it is replaced in three steps: POST /security/ekmip/ca/prepare, switch, finish.",
};

/// A client certificate ends soon.
pub static CLIENT_EXPIRING: Message = Message {
    name: "keystead.ekmip.clientExpiring",
    severity: Severity::Error,
    summary: "a certificate of EKMIP clients ends soon, or has ended",
    description: "The certificate of an EKMIP client, or the client CA of an SVM and with it all its certificates, ends within 30 days, within 7 days, within a day, or has ended. Each of the four is \
                  told once. A client whose certificate has ended gets no keys.",
    corrective_action: "Issue a new certificate with POST /security/ekmip/clients, or install the new CA with POST /security/ekmip/client-cas, and bring it to the client.",
};

/// Events are missing from the record.
pub static EVENTS_LOST: Message = Message {
    name: "keystead.ems.eventsLost",
    severity: Severity::Error,
    summary: "events could not be kept",
    description: "The store has taken no events for so long that this node had to let the oldest go. The parameter count says how many; their numbers are missing from the list.",
    corrective_action: "Read the node's log: all of them stand there. Find out why the store could not be written to.",
};

/// A move of keys has failed.
pub static MIGRATE_FAILED: Message = Message {
    name: "keystead.migrate.failed",
    severity: Severity::Error,
    summary: "keys were not moved, or not all of them",
    description: "A job that moves the keys of an SVM between the onboard key manager and AWS KMS has failed, or was cancelled. Before keystead.migrate.turned it has changed nothing; after it, the key store \
                  of the SVM is mixed: keys are served from both sides, as far as AWS KMS allows it.",
    corrective_action: "Look at the parameter reason. Migrate the same way again, and the move goes on where it was. A move to AWS KMS whose customer key is lost can be given up by migrating back.",
};

/// A move of keys has ended.
pub static MIGRATE_FINISHED: Message = Message {
    name: "keystead.migrate.finished",
    severity: Severity::Notice,
    summary: "all keys of the SVM are moved",
    description: "Every key of the SVM is wrapped again by a KEK that the destination keeps, and what the source held is deleted. Keys are the same, byte for byte.",
    corrective_action: "(NONE). Older backups of the store still hold the keys as they were wrapped before.",
};

/// A move to AWS KMS was given up.
pub static MIGRATE_GIVEN_UP: Message = Message {
    name: "keystead.migrate.givenUp",
    severity: Severity::Alert,
    summary: "a move of keys to AWS KMS was given up",
    description: "An administrator of the cluster has given up a move to AWS KMS that had not ended. Keys that it had not come to, which never were under the customer key, and new keys are the onboard key \
                  manager's from now on. Keys that had been moved, or were made meanwhile, stay under the customer key.",
    corrective_action: "When AWS KMS allows the customer key again, migrate from AWS KMS to the onboard key manager once more. Or destroy the keys that AWS KMS keeps. Then the configuration can be deleted.",
};

/// A move of keys has begun.
pub static MIGRATE_STARTED: Message = Message {
    name: "keystead.migrate.started",
    severity: Severity::Notice,
    summary: "the keys of the SVM are about to be moved",
    description: "A job prepares to move the keys of an SVM between the onboard key manager and AWS KMS: by migrate, or by an enabling of AWS KMS. New keys still go to the source. Told again when the job \
                  starts over.",
    corrective_action: "(NONE).",
};

/// The SVM is turned to where its keys move to.
pub static MIGRATE_TURNED: Message = Message {
    name: "keystead.migrate.turned",
    severity: Severity::Notice,
    summary: "new keys of the SVM go to the destination, and the others follow",
    description: "The SVM has a new KEK that the destination keeps. New keys are wrapped by it from now on, and the others are wrapped again one after the other; all are served meanwhile.",
    corrective_action: "(NONE). keystead.migrate.finished follows.",
};

/// All messages, by name.
pub static MESSAGES: [&Message; 28] = [
    &AVAILABLE,
    &KEY_CHANGED,
    &KEY_VERSION_CHANGED,
    &NOT_AVAILABLE,
    &OFFLINE,
    &ONLINE,
    &AUDIT_COLLECTOR_AWAY,
    &AUDIT_COLLECTOR_BACK,
    &AUDIT_NOT_WRITABLE,
    &AUDIT_WRITABLE,
    &INTEGRITY,
    &MISCONFIGURED,
    &REVOKING,
    &REWRAP_FAILED,
    &THROTTLED,
    &RESTORED,
    &CERTIFICATE_EXPIRING,
    &CERTIFICATE_RENEWED,
    &CLIENT_EXPIRING,
    &EVENTS_LOST,
    &MIGRATE_FAILED,
    &MIGRATE_FINISHED,
    &MIGRATE_GIVEN_UP,
    &MIGRATE_STARTED,
    &MIGRATE_TURNED,
    &REST_CERTIFICATE_EXPIRING,
    &REST_CERTIFICATE_RENEWED,
    &SECURITY_CERTIFICATE_EXPIRING,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_order_and_all_is_said() {
        for pair in MESSAGES.windows(2) {
            let [one, other] = pair else { continue };
            assert!(one.name < other.name, "{} {}", one.name, other.name);
        }
        for message in MESSAGES {
            assert!(message.name.starts_with("ekmip.awskms.") || message.name.starts_with("keystead."), "{}", message.name);
            assert!(!message.summary.is_empty() && !message.description.is_empty() && !message.corrective_action.is_empty());
            assert!(!message.description.contains("  ") && !message.corrective_action.contains("  "), "{}", message.name);
        }
    }
}
