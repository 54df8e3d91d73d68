//! The style, the script and the icon: in the program, under names that change with what is in them, so that browsers keep them for good.

use crate::request::{Answer, Body};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use keystead_manager::{Code, Error, Result};

/// A file.
pub struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    /// Of its text, and not more than that: it tells versions apart, and protects nothing.
    fingerprint: u64,
}

/// The style.
pub static STYLE: Asset = Asset::new("console.css", "text/css; charset=utf-8", include_str!("console.css"));
/// The script.
pub static SCRIPT: Asset = Asset::new("console.js", "text/javascript; charset=utf-8", include_str!("console.js"));
/// The icon.
pub static ICON: Asset = Asset::new("icon.svg", "image/svg+xml", include_str!("icon.svg"));

static ALL: [&Asset; 3] = [&STYLE, &SCRIPT, &ICON];

impl Asset {
    const fn new(name: &'static str, kind: &'static str, text: &'static str) -> Self {
        Self { name, kind, text, fingerprint: fingerprint(text.as_bytes()) }
    }

    /// Its name: another one as soon as its text is another one.
    fn file(&self) -> String {
        format!("{:016x}-{}", self.fingerprint, self.name)
    }

    /// Where it stands.
    pub fn path(&self) -> String {
        format!("/console/static/{}", self.file())
    }
}

/// Answers a request for a file.
///
/// # Errors
/// 4.
pub fn answer(file: &str, headers: &HeaderMap) -> Result<Answer> {
    let asset = ALL.into_iter().find(|asset| asset.file() == file).ok_or_else(|| Error::new(Code::NotFound))?;
    let tag = format!("\"{:016x}\"", asset.fingerprint);
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let answer = if is_known {
        Answer::empty(StatusCode::NOT_MODIFIED)
    } else {
        Answer { body: Body::Ready(Bytes::from_static(asset.text.as_bytes()), asset.kind), ..Answer::empty(StatusCode::OK) }
    };
    Ok(answer.header(header::ETAG, &tag).header(header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
}

/// FNV-1a, 64 bits.
const fn fingerprint(mut text: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    while let [first, rest @ ..] = text {
        hash = (hash ^ *first as u64).wrapping_mul(0x0000_0100_0000_01b3);
        text = rest;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_own_name_alone_and_known_by_its_tag() {
        for asset in ALL {
            let answer = answer(&asset.file(), &HeaderMap::new()).unwrap();
            let mut known = HeaderMap::new();
            known.insert(header::IF_NONE_MATCH, answer.headers[header::ETAG].clone());
            assert_eq!((answer.status, super::answer(&asset.file(), &known).unwrap().status), (StatusCode::OK, StatusCode::NOT_MODIFIED));
            assert!(super::answer(asset.name, &HeaderMap::new()).is_err());
        }
        assert_eq!(fingerprint(b"a"), 0xaf63_dc4c_8601_ec8c, "the published value");
    }
}
