//! Looks for private keys where none may stand: in the clear, and in base64, which starts at any of three offsets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

const TITLE: &[u8] = b"PRIVATE KEY-----";

/// Panics where a file of the store holds a private key in PEM, or the base64 of one.
pub fn no_private_key(data: &std::path::Path) {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for skip in 0..3 {
        assert!(holds_private_key(BASE64.encode(format!("{}{key}", &"xxx"[..skip])).as_bytes()), "a search that finds nothing");
    }
    for file in ["store.db", "store.db-wal"] {
        assert!(!holds_private_key(&std::fs::read(data.join(file)).unwrap_or_default()), "{file}");
    }
}

fn holds_private_key(bytes: &[u8]) -> bool {
    // What the title is in base64, without the characters that what stands before and behind it has a part in.
    let encoded = |skip: usize| {
        let text = BASE64.encode([&b"xxx"[..skip], TITLE].concat());
        text.as_bytes()[if skip == 0 { 0 } else { 4 }..text.len() - 4].to_vec()
    };
    let needles = [TITLE.to_vec(), encoded(0), encoded(1), encoded(2)];
    needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle))
}
