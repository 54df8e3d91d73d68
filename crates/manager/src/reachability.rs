//! `ekmip_reachability`: whether a node reaches the EKMIP servers of all nodes, as an SVM.

use crate::certificates::Created;
use crate::model::{EkmipReachability, NodeRef};
use crate::records::{AuthorityRecord, AwsKmsRecord, NodeRecord};
use crate::{Code, Error, Manager, Result};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// How long a look takes at the most.
const LIMIT: Duration = Duration::from_secs(5);

/// Speaks KMIP to a server. The data plane brings it: this room knows no KMIP.
#[async_trait]
pub trait EkmipProbe: Send + Sync + 'static {
    /// One exchange over TLS with the server at `address` (`host:port`), with a certificate that speaks for the SVM; the server's certificate must be one of the cluster's CA (PEM). `fips`: with the
    /// TLS of FIPS mode.
    ///
    /// # Errors
    /// Why not, in words.
    async fn probe(&self, address: &str, client: &Created, ca_certificate: &str, fips: bool) -> std::result::Result<(), String>;
}

impl Manager {
    /// Makes a KMIP exchange with every node's EKMIP server, as the SVM of a configuration. One entry a node: a node speaks for itself alone, and this one cannot yet ask others.
    ///
    /// # Errors
    /// 4.
    pub async fn ekmip_reachability(&self, uuid: Uuid) -> Result<Vec<EkmipReachability>> {
        let inner = self.inner();
        let config = inner.view.get::<AwsKmsRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        let client = self.probe_certificate(config.record.svm)?;
        let ca = inner.view.only::<AuthorityRecord>()?.record.certificate;
        let nodes = inner.view.all::<NodeRecord>();
        let mut unreachable = Vec::new();
        let exchanges = nodes.iter().map(|node| async {
            let result = match &node.record.ekmip_address {
                None => Err("it has no address for EKMIP clients: set [ekmip] address".to_owned()),
                Some(address) => {
                    let exchange = inner.ekmip_probe.probe(address, &client, &ca, self.fips());
                    tokio::time::timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(format!("{address} does not answer within {} s", LIMIT.as_secs())))
                }
            };
            result.map_err(|why| format!("{}: {why}", node.record.name))
        });
        for result in futures_util::future::join_all(exchanges).await {
            unreachable.extend(result.err());
        }
        let own = NodeRef { uuid: inner.node.uuid, name: inner.node.name.clone() };
        Ok(vec![match unreachable.is_empty() {
            true => EkmipReachability { node: own, reachable: true, code: None, message: String::new() },
            false => EkmipReachability {
                node: own,
                reachable: false,
                code: Some(Code::EkmipUnreachable),
                message: format!("{} from node {} - {}", Code::EkmipUnreachable.text(), inner.node.name, unreachable.join("; ")),
            },
        }])
    }
}
