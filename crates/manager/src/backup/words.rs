//! Records in words, for who restores a backup.

use super::Inventory;
use crate::records::{AccountRecord, AwsKmsRecord, CertificateRecord, EkmipClientCaRecord, EkmipClientRecord, KekRecord, Record, SvmRecord};

/// A record that an operator knows by some words.
pub(super) trait Told: Record {
    /// Those words; `inventory` has the names of SVMs.
    fn told(&self, inventory: &Inventory) -> String;
}

impl Told for SvmRecord {
    fn told(&self, _: &Inventory) -> String {
        format!("the SVM {}", self.name)
    }
}

impl Told for AwsKmsRecord {
    fn told(&self, inventory: &Inventory) -> String {
        format!("AWS KMS of the SVM {}, with its credentials", inventory.svm_name(self.svm))
    }
}

impl Told for KekRecord {
    fn told(&self, inventory: &Inventory) -> String {
        format!("version {} of the KEK of the SVM {}", self.version, inventory.svm_name(self.svm))
    }
}

impl Told for EkmipClientRecord {
    fn told(&self, inventory: &Inventory) -> String {
        format!("the EKMIP client {} of the SVM {}", self.common_name, inventory.svm_name(self.svm))
    }
}

impl Told for EkmipClientCaRecord {
    fn told(&self, inventory: &Inventory) -> String {
        format!("the CA {} of EKMIP clients of the SVM {}", self.subject, inventory.svm_name(self.svm))
    }
}

impl Told for CertificateRecord {
    fn told(&self, _: &Inventory) -> String {
        format!("the certificate {}", self.name)
    }
}

impl Told for AccountRecord {
    fn told(&self, _: &Inventory) -> String {
        format!("the account {}", self.name)
    }
}
