//! `ekmip_reachability`: whether each node reaches the EKMIP servers of all nodes, as an SVM.

use crate::aws_kms::stored;
use crate::certificates::Created;
use crate::inner::Inner;
use crate::looks::Freshness;
use crate::model::{EkmipReachability, NodeRef};
use crate::peers::{Said, What, down};
use crate::records::{AuthorityRecord, AwsKmsRecord, NodeRecord, Stored};
use crate::{Code, Manager, Result};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// How long an exchange takes at the most.
const LIMIT: Duration = Duration::from_millis(3_500);

/// Speaks KMIP to a server. The data plane brings it: this room knows no KMIP.
#[async_trait]
pub trait EkmipProbe: Send + Sync + 'static {
    /// One exchange over TLS with the server at `address` (`host:port`), with a certificate that speaks for the SVM; the server's certificate must be one of the cluster's CAs (PEM). `fips`: with the
    /// TLS of FIPS mode.
    ///
    /// # Errors
    /// Why not, in words.
    async fn probe(&self, address: &str, client: &Created, ca_certificate: &str, fips: bool) -> std::result::Result<(), String>;
}

impl Manager {
    /// Has every node make a KMIP exchange with every node's EKMIP server, as the SVM of a configuration. One entry a node, by uuid.
    ///
    /// # Errors
    /// 4.
    pub async fn ekmip_reachability(&self, uuid: Uuid, freshness: Freshness) -> Result<Vec<EkmipReachability>> {
        let inner = self.inner();
        let config = stored(inner, uuid)?;
        inner.ekmip_looks.look(freshness, &*inner.clock, &config, inner.look_at_ekmip(&config)).await
    }
}

impl Inner {
    async fn look_at_ekmip(&self, config: &Stored<AwsKmsRecord>) -> Result<Vec<EkmipReachability>> {
        let (own, others) = tokio::join!(self.own_ekmip_reachability(config), self.ask_others(What::Ekmip { config: config.record.uuid }));
        let (good, message) = own?;
        let own = if good { Said::Fine(message) } else { Said::Not(message) };
        let mut entries: Vec<EkmipReachability> = others.into_iter().map(|heard| entry(heard.node, &heard.said)).collect();
        entries.push(entry(self.node.clone(), &own));
        entries.sort_by_key(|entry| entry.node.uuid);
        Ok(entries)
    }

    /// Whether this node reaches the EKMIP servers of all nodes; else which not, and why. One that is down is not waited for.
    pub(crate) async fn own_ekmip_reachability(&self, config: &Stored<AwsKmsRecord>) -> Result<(bool, String)> {
        let client = self.probe_certificate(config.record.svm)?;
        let ca = self.view.only::<AuthorityRecord>()?.record.bundle();
        let fips = self.settings().fips;
        let nodes = self.view.all::<NodeRecord>();
        let exchanges = nodes.iter().map(|node| async {
            let result = match (down(self, &node.record), &node.record.ekmip_address) {
                (Some(down), _) => Err(down),
                (None, None) => Err("it has no address for EKMIP clients: set [ekmip] address".to_owned()),
                (None, Some(address)) => {
                    let exchange = self.ekmip_probe.probe(address, &client, &ca, fips);
                    tokio::time::timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(format!("{address} does not answer within {} s", LIMIT.as_secs_f32())))
                }
            };
            result.err().map(|why| format!("{}: {why}", node.record.name))
        });
        let unreachable: Vec<String> = futures_util::future::join_all(exchanges).await.into_iter().flatten().collect();
        Ok((unreachable.is_empty(), unreachable.join("; ")))
    }
}

fn entry(node: NodeRef, said: &Said) -> EkmipReachability {
    let Some(why) = said.trouble() else {
        return EkmipReachability { node, reachable: true, code: None, message: String::new() };
    };
    let message = match said {
        Said::Not(_) => format!("{} from node {} - {why}", Code::EkmipUnreachable.text(), node.name),
        _ => format!("node {} cannot be asked: {why}", node.name),
    };
    EkmipReachability { node, reachable: false, code: Some(Code::EkmipUnreachable), message }
}
