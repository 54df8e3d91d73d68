//! A rolling upgrade from an earlier build (`KEYSTEAD_BEFORE`, a program), and back: nodes are replaced one after the other while clients make, read and destroy keys at all of them. Jobs run while both are there.
//! `scripts/rolling-upgrade` builds the earlier one, and runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::Cluster;
use common::eventually;
use common::load::Load;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

const NODES: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a build of an earlier commit: scripts/rolling-upgrade"]
async fn nodes_are_replaced_one_after_the_other_and_back() {
    let before = PathBuf::from(std::env::var_os("KEYSTEAD_BEFORE").expect("KEYSTEAD_BEFORE names the earlier program"));
    let mut cluster = Cluster::start_of(Some(before.clone()), 3, NODES).await;
    let (config, client) = cluster.tenant("svm1").await;
    let mut load = Load::start(&cluster, &client).await;
    for (program, what) in [(None, "upgraded"), (Some(before), "downgraded")] {
        cluster.program = program;
        for node in 0..NODES {
            let since = Instant::now();
            cluster.stop(node);
            cluster.restart(node).await;
            load.moved(&cluster, node);
            load.healed(&format!("node{node} was {what}"), since, []).await;
            // Whichever node takes them: of the old build, or of the new one.
            for asked in 0..NODES {
                for (method, path, body) in
                    [("POST", "/rekey-internal", None), ("PATCH", "", Some(json!({ "polling_period": 30 + asked }))), ("POST", "/restore", None)]
                {
                    let path = format!("{config}{path}?return_timeout=60");
                    eventually("the job must succeed", async || {
                        let (status, body) = cluster.node(asked).call(method, &path, body.clone()).await?;
                        assert!(matches!(status, 200 | 201 | 400 | 409 | 500), "{body}");
                        // A node that was stopped a moment ago still counts as one that is needed.
                        (status <= 201).then_some(())
                    })
                    .await;
                }
            }
            let body = cluster.node(node).get(&format!("{config}?fields=state,amazon_reachability,ekmip_reachability")).await;
            assert_eq!((&body["state"]["code"], body["ekmip_reachability"].as_array().unwrap().len()), (&json!("0"), NODES), "{body}");
        }
    }
    load.check(&cluster, &client).await;
}
