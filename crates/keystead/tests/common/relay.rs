//! A way to AWS that can be cut, or lead elsewhere.

use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Connections that stand are closed by each change. While it is cut, new ones get no answer.
pub struct Relay {
    pub address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
}

impl Relay {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self { address: listener.local_addr().unwrap(), target: watch::channel(Some(target)).0 };
        let targets = relay.target.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut targets = targets.clone();
                tokio::spawn(async move {
                    let Ok(target) = targets.wait_for(Option::is_some).await.map(|target| *target) else { return };
                    let Ok(mut far) = TcpStream::connect(target.unwrap()).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = targets.wait_for(|now| *now != target) => {}
                    }
                });
            }
        });
        relay
    }

    /// Leads there from now on; nowhere: it is cut.
    pub fn lead(&self, to: Option<SocketAddr>) {
        self.target.send_replace(to);
    }
}
