//! What each call takes and answers. A test compares this table with that of the routes.

use crate::resource::Declared;
use crate::{
    accounts, audit_messages, aws_kms, certificates, cluster, cluster_ca, ekmip_clients, ems, jobs, key_managers, key_stores, password, roles, security,
    sessions, settings, signing_requests, svms,
};
use http::Method;

/// A call.
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path, as in the table of routes.
    pub path: &'static str,
    /// The names of its variable parts.
    pub segments: &'static [&'static str],
    /// What it takes and answers.
    pub shape: Shape,
    /// What it does, in one line.
    pub doc: &'static str,
}

/// What a call takes and answers.
#[derive(Clone, Copy)]
pub enum Shape {
    /// A list.
    List(&'static dyn Declared),
    /// One record.
    One(&'static dyn Declared),
    /// A POST that makes a record; whether by a job.
    Create(&'static dyn Declared, bool),
    /// A POST with a body of its own, and what is answered.
    Post(&'static dyn Declared, Posted),
    /// A POST without a body, by a job.
    Action,
    /// A PATCH; whether by a job.
    Modify(&'static dyn Declared, bool),
    /// A PATCH whose fields may stand in the URL as well.
    Control(&'static dyn Declared),
    /// A DELETE; whether by a job.
    Delete(bool),
}

/// What a POST with a body of its own answers.
#[derive(Clone, Copy)]
pub enum Posted {
    /// 200, and this.
    Now(Option<&'static dyn Declared>),
    /// A job does it; then 201, with the record where that is wanted.
    ByJob(&'static dyn Declared),
    /// 201 and the record.
    Made(&'static dyn Declared),
}

macro_rules! calls {
    ($($method:ident $path:literal [$($segment:literal),*] $shape:expr, $doc:literal;)*) => {
        /// The table.
        pub static CALLS: &[Call] = &[$(Call { method: Method::$method, path: $path, segments: &[$($segment),*], shape: $shape, doc: $doc }),*];
    };
}

use Posted::{ByJob, Made, Now};
use Shape::{Action, Control, Create, Delete, List, Modify, One, Post};

calls! {
    GET    "/api/cluster" [] One(&cluster::CLUSTER), "The cluster: its name and version.";
    GET    "/api/cluster/nodes" [] List(&cluster::NODE), "The nodes.";
    GET    "/api/cluster/nodes/{}" ["uuid"] One(&cluster::NODE), "A node.";
    DELETE "/api/cluster/nodes/{}" ["uuid"] Delete(false), "Takes a node that is down out of the cluster. One that is started again comes back.";
    GET    "/api/cluster/jobs" [] List(&jobs::JOB), "The jobs.";
    GET    "/api/cluster/jobs/{}" ["uuid"] One(&jobs::JOB), "A job.";
    PATCH  "/api/cluster/jobs/{}" ["uuid"] Control(&jobs::CONTROL), "Pauses, resumes or cancels a job.";
    GET    "/api/svm/svms" [] List(&svms::SVM), "The SVMs.";
    POST   "/api/svm/svms" [] Create(&svms::SVM, true), "Makes an SVM.";
    GET    "/api/svm/svms/{}" ["uuid"] One(&svms::SVM), "An SVM.";
    PATCH  "/api/svm/svms/{}" ["uuid"] Modify(&svms::SVM, true), "Changes an SVM.";
    DELETE "/api/svm/svms/{}" ["uuid"] Delete(true), "Deletes an SVM that has no key manager.";
    GET    "/api/security" [] One(&security::SECURITY), "FIPS mode.";
    PATCH  "/api/security" [] Modify(&security::SECURITY, false), "Turns FIPS mode on or off.";
    GET    "/api/security/aws-kms" [] List(&aws_kms::AWS_KMS), "The AWS KMS configurations.";
    POST   "/api/security/aws-kms" [] Create(&aws_kms::AWS_KMS, true), "Configures AWS KMS for an SVM.";
    GET    "/api/security/aws-kms/{}" ["uuid"] One(&aws_kms::AWS_KMS), "An AWS KMS configuration.";
    PATCH  "/api/security/aws-kms/{}" ["uuid"] Modify(&aws_kms::AWS_KMS, true), "Changes an AWS KMS configuration.";
    DELETE "/api/security/aws-kms/{}" ["uuid"] Delete(true), "Deletes an AWS KMS configuration that keeps no keys.";
    POST   "/api/security/aws-kms/{}/restore" ["uuid"] Action, "Loads the KEKs that nodes lack.";
    POST   "/api/security/aws-kms/{}/rekey-internal" ["uuid"] Action, "Makes the next version of the SVM's KEK, and wraps every key again.";
    POST   "/api/security/aws-kms/{}/rekey-external" ["uuid"] Post(&aws_kms::REKEY_EXTERNAL, ByJob(&aws_kms::AWS_KMS)), "Wraps the SVM's KEK under another customer key.";
    GET    "/api/security/certificates" [] List(&certificates::CERTIFICATE), "The certificates.";
    POST   "/api/security/certificates" [] Create(&certificates::CERTIFICATE, false), "Makes or installs a certificate.";
    GET    "/api/security/certificates/{}" ["uuid"] One(&certificates::CERTIFICATE), "A certificate.";
    DELETE "/api/security/certificates/{}" ["uuid"] Delete(false), "Deletes a certificate.";
    POST   "/api/security/certificates/{}/sign" ["uuid"] Post(&certificates::SIGN, Now(Some(&certificates::SIGN))), "Signs a certificate signing request by a root_ca.";
    POST   "/api/security/certificate-signing-request" [] Post(&signing_requests::REQUEST, Now(None)), "Makes a key, and the request to have it certified.";
    GET    "/api/security/key-managers" [] List(&key_managers::KEY_MANAGER), "The onboard key manager.";
    POST   "/api/security/key-managers" [] Create(&key_managers::KEY_MANAGER, true), "Sets up the onboard key manager.";
    GET    "/api/security/key-managers/{}" ["uuid"] One(&key_managers::KEY_MANAGER), "The onboard key manager.";
    PATCH  "/api/security/key-managers/{}" ["uuid"] Modify(&key_managers::KEY_MANAGER, true), "Changes the passphrase, or recovers by it.";
    DELETE "/api/security/key-managers/{}" ["uuid"] Delete(true), "Deletes the onboard key manager, if it keeps no keys.";
    POST   "/api/security/key-managers/{}/migrate" ["uuid"] Post(&key_managers::MIGRATE, ByJob(&key_managers::KEY_MANAGER)), "Moves keys to another key manager.";
    GET    "/api/security/key-managers/{}/keys/{}/key-ids" ["security_key_manager_uuid", "node_uuid"] List(&key_stores::KEY_ID), "The keys of a key manager on a node.";
    GET    "/api/security/key-stores" [] List(&key_stores::KEY_STORE), "The key stores.";
    GET    "/api/security/key-stores/{}" ["uuid"] One(&key_stores::KEY_STORE), "A key store.";
    GET    "/api/security/ekmip/clients" [] List(&ekmip_clients::CLIENT), "The EKMIP clients.";
    POST   "/api/security/ekmip/clients" [] Create(&ekmip_clients::CLIENT, false), "Makes a certificate that speaks for an SVM.";
    GET    "/api/security/ekmip/clients/{}" ["uuid"] One(&ekmip_clients::CLIENT), "An EKMIP client.";
    DELETE "/api/security/ekmip/clients/{}" ["uuid"] Delete(false), "Revokes an EKMIP client.";
    GET    "/api/security/ekmip/client-cas" [] List(&ekmip_clients::CLIENT_CA), "The CAs whose certificates speak for an SVM.";
    POST   "/api/security/ekmip/client-cas" [] Create(&ekmip_clients::CLIENT_CA, false), "Lets the certificates of a CA speak for an SVM.";
    GET    "/api/security/ekmip/client-cas/{}" ["uuid"] One(&ekmip_clients::CLIENT_CA), "A CA of EKMIP clients.";
    DELETE "/api/security/ekmip/client-cas/{}" ["uuid"] Delete(false), "Takes a CA of EKMIP clients away.";
    POST   "/api/security/ekmip/preflight" [] Post(&aws_kms::AWS_KMS, Now(Some(&aws_kms::PREFLIGHT))), "Tries what a POST of the same body to /security/aws-kms would configure, step by step. Nothing is kept.";
    GET    "/api/security/ekmip/settings" [] One(&settings::SETTINGS), "The cluster's settings.";
    PATCH  "/api/security/ekmip/settings" [] Modify(&settings::SETTINGS, false), "Changes the cluster's settings.";
    GET    "/api/security/ekmip/ca" [] One(&cluster_ca::CLUSTER_CA), "The cluster's own CA.";
    POST   "/api/security/ekmip/ca/prepare" [] Action, "Makes the CA that will replace the cluster's: it is trusted, and signs nothing yet.";
    POST   "/api/security/ekmip/ca/switch" [] Action, "Lets it sign. The old one is trusted still.";
    POST   "/api/security/ekmip/ca/finish" [] Action, "Forgets the old one: its certificates are refused from now on.";
    POST   "/api/security/ekmip/seal/rotate" [] Action, "Seals every secret of the store with the new seal key that every node has beside the old one.";
    GET    "/api/security/accounts" [] List(&accounts::ACCOUNT), "The accounts.";
    POST   "/api/security/accounts" [] Create(&accounts::ACCOUNT, false), "Makes an account.";
    GET    "/api/security/accounts/{}/{}" ["owner.uuid", "name"] One(&accounts::ACCOUNT), "An account.";
    PATCH  "/api/security/accounts/{}/{}" ["owner.uuid", "name"] Modify(&accounts::ACCOUNT, false), "Changes an account.";
    DELETE "/api/security/accounts/{}/{}" ["owner.uuid", "name"] Delete(false), "Deletes an account.";
    GET    "/api/security/roles" [] List(&roles::ROLE), "The roles.";
    GET    "/api/security/roles/{}/{}" ["owner.uuid", "name"] One(&roles::ROLE), "A role.";
    GET    "/api/security/audit/messages" [] List(&audit_messages::MESSAGE), "The audit log of this node, the newest first.";
    POST   "/api/security/authentication/password" [] Post(&password::PASSWORD, Now(None)), "Changes a password.";
    GET    "/api/security/ekmip/sessions" [] List(&sessions::SESSION), "One's own sessions of the console.";
    POST   "/api/security/ekmip/sessions" [] Post(&sessions::NEW, Made(&sessions::SESSION)), "Begins a session, with name and password: the token is in a cookie.";
    GET    "/api/security/ekmip/sessions/{}" ["uuid"] One(&sessions::SESSION), "A session of one's own.";
    DELETE "/api/security/ekmip/sessions/{}" ["uuid"] Delete(false), "Ends a session of one's own.";
    GET    "/api/support/ems/events" [] List(&ems::EVENT), "The events, the newest first.";
    GET    "/api/support/ems/events/{}/{}" ["node_name", "index"] One(&ems::EVENT), "An event.";
    GET    "/api/support/ems/messages" [] List(&ems::MESSAGE), "The catalogue of messages.";
}
