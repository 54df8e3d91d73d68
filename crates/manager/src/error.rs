//! One neutral error: a stable ONTAP code, a text for the user, a detail for the log.
//!
//! The edges (REST, later KMIP) turn a [`Code`] into their own status at the very end; nothing in this room knows about HTTP.

use std::fmt;
use std::time::Duration;

/// The result of every call of the key manager.
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The error codes, as ONTAP numbers them (its REST error tables; `contract/rest.md` says when each is raised).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Code {
            $(#[doc = $text] $(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// What the code means, in one sentence, without a full stop where more may follow. An error's message starts with it.
            pub const fn text(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// The code of a number, where it is one of ours.
            pub fn from_number(number: u32) -> Option<Code> {
                match number { $($number => Some(Code::$name),)* _ => None }
            }
        }
    };
}

codes! {
    // Common: the request as such.
    Duplicate = 1, "The entry exists already";
    MethodNotAllowed = 3, "The path or the method is not supported";
    NotFound = 4, "entry doesn't exist";
    PermissionDenied = 6, "This account may not do that";
    LimitReached = 7, "A limit of the cluster is reached";
    InUse = 8, "The entry is in use";
    Unexpected = 262145, "An unexpected error happened";
    TooManyRequests = 262160, "Too many requests at a time";
    MissingValue = 262177, "A value is missing";
    UnknownField = 262179, "The field is not known";
    InvalidRecord = 262185, "An element of `records` is not valid";
    FieldCombination = 262186, "The fields do not go together";
    FieldTwice = 262188, "The parameter is given twice";
    UnknownRequestedField = 262197, "The field asked for is not known";
    BodyNotAllowed = 262198, "The call takes no fields in its body";
    InvalidJsonAt = 262199, "The body is not JSON";
    InvalidJsonRange = 262200, "A number in the body is out of the range of JSON numbers";
    InvalidJson = 262201, "The body cannot be read";
    SecretInUrl = 262202, "The field must not be part of a URL";
    NotModifiable = 262203, "The field cannot be changed";
    FilterOnCreate = 262211, "A POST takes no filters";
    MissingField = 262212, "A required field is missing";
    OutOfBounds = 262245, "The value is not allowed";
    InvalidValue = 262247, "The value is not valid";
    NoAssignment = 262248, "The parameter has no value: name=value is needed";
    NotRequestable = 262249, "The field cannot be asked for";
    NotFilterable = 262250, "The field cannot be filtered by";
    ArrayExpected = 262254, "An array is expected";
    ArrayNotExpected = 262255, "An array is not expected";
    NotSortable = 262268, "The field cannot be ordered by";
    QueryNotAllowed = 262272, "A search is for a GET alone";
    QueryMissing = 262273, "query_fields needs a query";
    EmptyQuery = 262274, "The query is empty";
    EmptyQueryFields = 262275, "query_fields is empty";
    UnknownQueryField = 262276, "A field of query_fields is not known, or cannot be searched";
    QueryFieldsMissing = 262277, "A query needs query_fields";
    KeyTwice = 262282, "A member is given twice in one JSON object";
    UnmatchedBraces = 262286, "The braces do not match";
    JobEnded = 458762, "The job has ended already";
    JobRunning = 458771, "The job is running";
    JobNotPausable = 458776, "The job cannot be paused, resumed or cancelled in its state";
    JobNotPausableWhileRunning = 458783, "The job cannot be paused once it runs";
    SvmMissing = 1260882, "The SVM does not exist";
    SvmNotFound = 2621462, "The SVM does not exist";
    SvmInvalidName = 2621471, "The name of the SVM is not valid";
    SvmMismatch = 2621706, "The UUID and the name of the SVM do not belong together";
    LastAdmin = 5636098, "The last account that administers the cluster cannot be deleted, locked or given another role";
    NotLoggedIn = 6691623, "The account is not authenticated";
    BadUrl = 39387137, "The URL cannot be read";

    // Certificates.
    CertificateType = 3735622, "This type of certificate cannot be created";
    CertificateSerial = 3735645, "The serial number of a certificate is made by the cluster and cannot be given";
    CertificateSubtype = 3735657, "A certificate with a subtype cannot be created";
    CertificateFipsKeySize = 3735664, "This key size is not allowed in FIPS mode";
    CertificateFipsHash = 3735665, "This hash function is not allowed in FIPS mode";
    CertificateKeySize = 3735700, "This key size is not supported";

    // FIPS mode.
    FipsRefused = 52559974, "FIPS mode cannot be turned on: things exist that it would refuse";

    // Keystead's own: ONTAP has no number for it.
    AuditUnwritable = 13114500, "Nothing is changed now, since the audit log cannot be written";

    // Key managers.
    // These two as ONTAP writes them, to the full stop: Ansible's module reads them to find out which passphrase the cluster has.
    WrongPassphrase = 65536139, "Cluster-wide passphrase is incorrect.";
    SamePassphrase = 65536150, "The new passphrase is same as old passphrase.";
    PassphraseLength = 65536404, "The passphrase does not have the length that is allowed";
    OnboardConfigured = 65536907, "The onboard key manager is already configured";
    OnboardForAdminSvm = 65536916, "The onboard key manager is for the admin SVM alone";
    PassphraseNeeded = 65536917, "A new passphrase needs the existing one beside it";
    OnboardPassphraseLength = 65536920, "The passphrase of the onboard key manager does not have the length that is allowed";
    SynchronizeNeedsPassphrase = 65537242, "The existing passphrase must be given to synchronize the onboard key manager";
    SynchronizeTakesNoPassphrase = 65537243, "A new passphrase must not be given to synchronize the onboard key manager";
    SynchronizeNoMetroCluster = 65537246, "The onboard key manager cannot be made from a partner cluster's: the cluster is not part of a MetroCluster configuration";
    SameKeyManager = 65536959, "The source and the destination are the same key manager";
    NodesUnhealthy = 65536968, "Keys cannot be moved: not all nodes of the cluster are healthy";
    KeyManagerNotFound = 65537117, "The key manager does not exist";
    OutOfQuorum = 65536600, "The nodes are out of quorum";
    NotAllKeysRestored = 65536082, "Not all keys were restored";
    DeleteViewNotLoaded = 65536817, "The keys of the SVM could not be counted since this node has not loaded them yet";
    DeleteRangeFailed = 65536827, "The keys of the SVM could not be counted since the store could not be read";
    DeleteStoreTimeout = 65536834, "The configuration could not be deleted since the store did not answer in time";
    KeyRecordMissing = 65536883, "The record of a key is missing";
    KeyRecordDamaged = 65536884, "The record of a key is damaged";
    KeysStillStored = 65537106, "Keys of this SVM are still stored here";
    NoClusterAddress = 65537518, "A node has no cluster-network address, so its EKMIP server cannot be reached";
    KeyUnusable = 65537538, "The customer key in AWS KMS cannot be used";
    NoInput = 65537541, "No field to change is given";
    KekMissingOnNode = 65537543, "The KEK of the SVM is missing on a node";
    KekMissing = 65537544, "The wrapped KEK of the SVM is missing";
    KeysAreOnboard = 65537547, "Keys of the SVM are stored on the admin SVM";
    KeyProtectionUnavailable = 65537551, "Key protection is unavailable";
    EkmipUnreachable = 65537552, "The EKMIP servers cannot be reached";
    Blocked = 65537556, "The key manager of the SVM is blocked";
    NoKeys = 65537559, "The SVM has no keys yet";
    NotAllNodesOnline = 65537566, "Not all nodes of the cluster are online";
    KeystoreSwitching = 65537610, "The key store of the SVM is being switched";
    MigrateSwitching = 65537611, "Keys cannot be moved: the key store of the SVM is being switched";
    EnableCredentials = 65537900, "AWS KMS was not enabled for the SVM: AWS refuses the access key or its secret";
    FeatureLevel = 65537901, "AWS KMS cannot be enabled: not all nodes run a version that supports it";
    StoreSecretFailed = 65537906, "The secret access key could not be stored";
    AwsKmsDisabled = 65537907, "AWS KMS is switched off on this cluster";
    AdminSvm = 65537908, "AWS KMS cannot be configured for the admin SVM";
    AlreadyConfigured = 65537910, "The SVM already has a key manager";
    MetroCluster = 65537911, "AWS KMS cannot be configured in a MetroCluster configuration";
    KeysOnAdminSvm = 65537912, "Keys of the SVM are stored on the admin SVM";
    AmazonUnreachable = 65537915, "AWS KMS cannot be reached";
    RekeyFailedOnNode = 65537919, "The KEK could not be wrapped under the new key";
    EmptySecret = 65537920, "The secret access key must not be empty";
    CannotConnect = 65537921, "AWS KMS cannot be used with these credentials";
    EmptyAccessKeyId = 65537924, "The access key ID must not be empty";
    NotConfigured = 65537926, "AWS KMS is not configured for the SVM";
    MigrateInitializing = 65539434, "Keys cannot be moved: the key manager of the SVM is being initialized";
    MigrateDisabling = 65539435, "Keys cannot be moved: the key manager of the SVM is being disabled";
    Initializing = 65539436, "The key manager of the SVM is being initialized";
    Disabling = 65539437, "The key manager of the SVM is being disabled";
}

impl Code {
    /// The number, as ONTAP writes it.
    pub const fn number(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// An error that a user sees, with what only the log gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The stable code.
    pub code: Code,
    /// What happened, where, and what to do next. No secrets, nothing internal.
    pub message: String,
    /// The dotted path of the field, or the parameter, that is to blame.
    pub target: Option<String>,
    /// More for the log alone: causes, internal names. No secrets.
    pub detail: Option<String>,
    /// When it is worth to try again, where that is known.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// The code's own text, and nothing more.
    pub fn new(code: Code) -> Self {
        Self { code, message: code.text().to_owned(), target: None, detail: None, retry_after: None }
    }

    /// The code's own text, a colon, and what is particular to this case.
    pub fn with(code: Code, particular: impl fmt::Display) -> Self {
        Self { code, message: format!("{}: {particular}", code.text()), target: None, detail: None, retry_after: None }
    }

    /// An internal failure: the user sees only that it happened, the log gets the detail.
    pub fn unexpected(detail: impl fmt::Display) -> Self {
        Self { detail: Some(detail.to_string()), ..Self::new(Code::Unexpected) }
    }

    /// Names the field or parameter to blame, as a dotted path.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// Says when it is worth to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What an operator of the machine is told, in one line: the detail, where there is one.
    pub fn for_operator(self) -> String {
        self.detail.unwrap_or(self.message)
    }

    /// Adds what only the log shall get.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A store that cannot be reached is a lost quorum to the user; every other failure of the store is unexpected, with the detail in the log.
/// Conflicts mean something to the operation that made the comparison, so they must be handled there and never end here.
impl From<keystead_store::Error> for Error {
    fn from(error: keystead_store::Error) -> Self {
        match error {
            keystead_store::Error::Unavailable(_) => Self::new(Code::OutOfQuorum).detail(error),
            _ => Self::unexpected(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_unique_and_found_again() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(*code));
        }
    }

    #[test]
    fn the_detail_stays_out_of_what_the_user_sees() {
        let error = Error::unexpected("disk sda1 says no");
        assert_eq!(error.to_string(), "An unexpected error happened");
        assert_eq!(error.detail.as_deref(), Some("disk sda1 says no"));
    }
}
