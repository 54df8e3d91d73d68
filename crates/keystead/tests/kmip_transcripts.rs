//! Transcripts that are not part of this project, as OASIS publishes them, against a whole node: `KEYSTEAD_KMIP_CASES=FOLDER:… cargo test -p keystead --test node -- kmip_transcripts:: --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::scene::scene_with;
use keystead::serve::Hooks;
use keystead_conformance::{Verdict, cases_in, replay_file};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KEYSTEAD_KMIP_CASES: folders of transcripts"]
async fn transcripts_pass() {
    let folders: Vec<_> = std::env::split_paths(&std::env::var_os("KEYSTEAD_KMIP_CASES").expect("KEYSTEAD_KMIP_CASES names the folders")).collect();
    let scene = scene_with("[ekmip]\ninterop = true\n", Hooks::default()).await;
    let endpoint = scene.client.endpoint(scene.node.ekmip);
    let (mut all, mut failed) = (0, 0);
    for folder in folders {
        let cases = cases_in(std::slice::from_ref(&folder)).unwrap();
        let mut passed = 0;
        for case in &cases {
            let verdict = tokio::task::block_in_place(|| replay_file(case, &endpoint));
            match verdict {
                Ok(Verdict::Pass) => passed += 1,
                Ok(Verdict::Fail(difference)) => println!("FAIL  {}: {difference}", case.file_stem().unwrap().to_string_lossy()),
                Err(error) => println!("FAIL  {}: cannot be replayed: {error}", case.file_stem().unwrap().to_string_lossy()),
            }
        }
        println!("{}: passes {passed} of {}", folder.display(), cases.len());
        (all, failed) = (all + cases.len(), failed + cases.len() - passed);
    }
    assert!(all > 0 && failed == 0, "{failed} of {all} cases fail");
}
