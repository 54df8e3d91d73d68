//! Reading records.

use super::members::{MAX_ANSWER_BYTES, Members};
use super::{Names, end_of, number, revision};
use crate::error::{Error, Result};
use crate::types::{Entry, Page, Range, Revision};
use etcd_client::{Client, GetOptions};

/// The most entries that are asked for at once; of the largest records, few enough for one answer.
const MOST: usize = 10_000;

pub(super) async fn get(members: &Members, names: &Names, key: &str) -> Result<Option<Entry>> {
    let name = names.record(key);
    let ask = |client: Client| {
        let name = name.clone();
        async move { client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES).get(name, None).await }
    };
    let answer = members.call(ask).await?;
    answer.kvs().first().map(|kv| names.entry(kv)).transpose()
}

/// `at`: as it was at that revision, and else now.
pub(super) async fn range(members: &Members, names: &Names, range: &Range, at: Option<Revision>) -> Result<Page> {
    if range.limit == 0 {
        return Err(Error::TooLarge("a range needs a limit of at least 1".to_owned()));
    }
    // The head stands before the slash.
    let prefix = names.record(if range.prefix.is_empty() { "/" } else { &range.prefix });
    let end = end_of(&prefix);
    // Behind a key comes, first of all, the same with a zero byte.
    let start = match &range.after {
        Some(after) if names.record(after) >= prefix => [names.record(after).as_bytes(), b"\0"].concat(),
        _ => prefix.into_bytes(),
    };
    let mut limit = range.limit.min(MOST);
    loop {
        let options =
            GetOptions::new().with_range(end.clone()).with_limit(i64::try_from(limit).unwrap_or(i64::MAX)).with_revision(at.map_or(0, |at| number(at.0)));
        let ask = |client: Client| {
            let (start, options) = (start.clone(), options.clone());
            async move { client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES).get(start, Some(options)).await }
        };
        let answer = match members.call(ask).await {
            // More than is taken at once: fewer of them.
            Err(Error::TooLarge(_)) if limit > 1 => {
                limit = (limit / 4).max(1);
                continue;
            }
            other => other?,
        };
        let entries = answer.kvs().iter().map(|kv| names.entry(kv)).collect::<Result<_>>()?;
        return Ok(Page { entries, revision: revision(answer.header().map_or(0, etcd_client::ResponseHeader::revision)), more: answer.more() });
    }
}
