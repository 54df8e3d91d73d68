//! The preflight: walks the way of a configuration to AWS step by step, and says at which one it ends, with what was seen there and what to do about it.
//!
//! The steps below HTTP run on connections of their own, under the same egress rule, TLS policy and proxy as the client's. The rest goes through the [`Client`] itself: what is
//! encrypted is a random value that is thrown away, never a key. No text of a report holds a secret.

mod advice;
mod network;
mod report;
mod wire;

pub use report::{Outcome, Report, STEPS, Step};

use crate::client::{Client, ClientConfig, Encrypted, KeyDescription, overall};
use crate::context::EncryptionContext;
use crate::environment::Environment;
use crate::error::{Class, Error, Hop};
use network::Probe;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

/// How many bytes are encrypted to try it.
const SAMPLE: usize = 32;

/// A preflight of one configuration.
pub struct Preflight {
    probe: Probe,
    client: Client,
    timeout: Duration,
}

/// A call to AWS that has failed already, so that it is not made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// DescribeKey was refused, or not answered.
    DescribeKey(Error),
    /// DescribeKey has answered with a key that cannot be used.
    UnusableKey(KeyDescription),
    /// DescribeKey went well, Encrypt did not.
    Encrypt(Error),
    /// Encrypt went well, Decrypt did not.
    Decrypt(Error),
    /// Decrypt has answered another plaintext.
    OtherPlaintext,
}

impl Preflight {
    /// Makes a preflight. Nothing is sent yet.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn new(environment: &Environment, config: ClientConfig) -> Result<Self, Error> {
        let (probe, timeout) = (Probe::new(environment, &config)?, config.timeout);
        Ok(Self { probe, client: Client::new(environment, config)?, timeout })
    }

    /// Takes all steps, with this customer key under this context. Each step below HTTP takes at most the configured timeout, all of these together at most twice that; what AWS is asked
    /// takes at most as long as one call of the client, its attempts included.
    pub async fn run(&self, key_id: &str, context: &EncryptionContext) -> Report {
        let mut report = Report::default();
        if self.probe.walk(&mut report, self.timeout * 2).await {
            self.ask(&mut report, key_id, context).await;
        }
        report
    }

    /// Takes the steps below HTTP, within one configured timeout altogether, and combines them with what has failed already. AWS is not asked again. The detail of that failure stays empty:
    /// who calls this has it.
    pub async fn after(&self, known: &Known) -> Report {
        let mut report = Report::default();
        if !self.probe.walk(&mut report, self.timeout).await {
            return report;
        }
        let earlier = |report: &mut Report, names: &[&'static str]| names.iter().for_each(|name| report.pass(name, Duration::ZERO, "a moment ago"));
        let (name, advice) = match known {
            Known::DescribeKey(error) => {
                described(&mut report, Duration::ZERO, error, "");
                report.skip_rest("DescribeKey has failed");
                return report;
            }
            Known::UnusableKey(key) => {
                earlier(&mut report, &["credentials"]);
                ("describe_key", unusable(key).map_or(advice::NOT_ENABLED, |(_, advice)| advice).to_owned())
            }
            Known::Encrypt(error) => {
                earlier(&mut report, &["credentials", "describe_key"]);
                ("encrypt", advice::aws(error, "kms:Encrypt"))
            }
            Known::Decrypt(error) => {
                earlier(&mut report, &["credentials", "describe_key", "encrypt"]);
                ("decrypt", advice::aws(error, "kms:Decrypt"))
            }
            Known::OtherPlaintext => {
                earlier(&mut report, &["credentials", "describe_key", "encrypt"]);
                ("decrypt", advice::OTHER_VALUE.to_owned())
            }
        };
        report.fail(name, Duration::ZERO, "", &advice);
        report.skip_rest(&format!("{name} has failed"));
        report
    }

    /// DescribeKey, Encrypt, Decrypt.
    async fn ask(&self, report: &mut Report, key_id: &str, context: &EncryptionContext) {
        let until = Instant::now() + overall(self.timeout);
        let (took, answer) = timed(until, self.client.describe_key(key_id)).await;
        match answer {
            None => return late(report, "describe_key", took),
            // Who must not describe a key may still be allowed to use it; all else ends it.
            Some(Err(error)) if !described(report, took, &error, &error.to_string()) => return report.skip_rest("DescribeKey has failed"),
            Some(Err(_)) => {}
            Some(Ok(key)) => {
                report.pass("credentials", took, "AWS accepts the access key");
                let seen = format!("{} is {}", key.arn, key.state);
                match unusable(&key) {
                    None => report.pass("describe_key", took, &seen),
                    Some((detail, advice)) => report.fail("describe_key", took, &detail, advice),
                }
            }
        }
        let Some((sample, encrypted)) = self.encrypt(report, until, key_id, context).await else { return };
        let (took, answer) = timed(until, self.client.decrypt(&encrypted.key_arn, &encrypted.blob, context)).await;
        match answer {
            None => late(report, "decrypt", took),
            Some(Err(error)) => report.fail("decrypt", took, &error.to_string(), &advice::aws(&error, "kms:Decrypt")),
            Some(Ok(decrypted)) if decrypted.plaintext.as_slice() == sample.as_slice() => report.pass("decrypt", took, "the same value came back"),
            Some(Ok(_)) => report.fail("decrypt", took, "another value came back than was encrypted", advice::OTHER_VALUE),
        }
    }

    async fn encrypt(&self, report: &mut Report, until: Instant, key_id: &str, context: &EncryptionContext) -> Option<(Zeroizing<[u8; SAMPLE]>, Encrypted)> {
        let mut sample = Zeroizing::new([0; SAMPLE]);
        if rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(sample.as_mut_slice()).is_err() {
            report.fail("encrypt", Duration::ZERO, "this machine gives no random numbers", "look at the random source of this machine; nothing was sent");
            report.skip_rest("encrypt has failed");
            return None;
        }
        let (took, answer) = timed(until, self.client.encrypt(key_id, sample.as_slice(), context)).await;
        match answer {
            Some(Ok(encrypted)) => {
                report.pass("encrypt", took, &format!("with {}", encrypted.key_arn));
                return Some((sample, encrypted));
            }
            Some(Err(error)) => report.fail("encrypt", took, &error.to_string(), &advice::aws(&error, "kms:Encrypt")),
            None => late(report, "encrypt", took),
        }
        report.skip_rest("encrypt has failed");
        None
    }
}

/// Writes down what a failed DescribeKey says of the credentials and of the key, which are one call. Answers whether AWS knows who asks, so that it may be asked more.
fn described(report: &mut Report, took: Duration, error: &Error, detail: &str) -> bool {
    let advice = advice::aws(error, "kms:DescribeKey");
    if error.is_credentials() || error.hop() == Hop::Credentials {
        report.fail("credentials", took, detail, &advice);
        return false;
    }
    // Whom AWS refuses a key, it knows. All else may be said before it has looked who asks.
    let known = error.came_from_aws() && error.class() == Class::Revoked;
    if known {
        report.pass("credentials", took, "AWS accepts the access key");
    } else {
        report.skip("credentials", took, "it does not show whether AWS accepts the access key");
    }
    report.fail("describe_key", took, detail, &advice);
    known
}

/// Why a key that AWS describes is of no use: what was seen, and what to do.
fn unusable(key: &KeyDescription) -> Option<(String, &'static str)> {
    match &key.usage {
        _ if !key.enabled => Some((format!("{} is in the state {}", key.arn, key.state), advice::NOT_ENABLED)),
        Some(usage) if usage != "ENCRYPT_DECRYPT" => Some((format!("{} is for {usage}", key.arn), advice::USAGE)),
        _ => None,
    }
}

fn late(report: &mut Report, name: &'static str, took: Duration) {
    if name == "describe_key" {
        report.skip("credentials", took, "AWS has not answered");
    }
    report.fail(name, took, "no answer in time", "look at what stands between this node and AWS KMS: connections come about, but answers are slow or missing");
    report.skip_rest(&format!("{name} has failed"));
}

/// A call, and how long it took. `None`: not within the limit.
async fn timed<T>(until: Instant, call: impl Future<Output = T>) -> (Duration, Option<T>) {
    let start = Instant::now();
    let answer = timeout_at(until, call).await.ok();
    (start.elapsed(), answer)
}

impl std::fmt::Debug for Preflight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Preflight({:?})", self.client)
    }
}
