//! What a client would rather have: JSON with links, or without (`Accept`, RFC 9110, section 12.5.1).

use http::{HeaderMap, header};

/// Whether plain JSON is preferred to JSON with links: what weighs the same is no preference.
pub fn prefers_plain(headers: &HeaderMap) -> bool {
    weight(headers, "json") > weight(headers, "hal+json")
}

/// The weight of `application/{subtype}`, from 0 to 1: that of the range that names it most closely. Several headers are as one.
fn weight(headers: &HeaderMap, subtype: &str) -> f32 {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok()).flat_map(|accept| accept.split(','));
    let matching = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (kind, sub) = parts.next()?.split_once('/')?;
        let closeness = match (kind.eq_ignore_ascii_case("application"), sub) {
            (true, sub) if sub.eq_ignore_ascii_case(subtype) => 2,
            (true, "*") => 1,
            (false, "*") if kind == "*" => 0,
            _ => return None,
        };
        Some((closeness, parts.find_map(quality).unwrap_or(1.0)))
    });
    matching.max_by(|(one, of_one), (other, of_other)| one.cmp(other).then(of_one.total_cmp(of_other))).map_or(0.0, |(_, quality)| quality)
}

/// `q=0.5`. What is no weight is as if it were not there.
fn quality(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    let quality = value.trim().parse().ok().filter(|quality| (0.0..=1.0).contains(quality));
    quality.filter(|_| name.trim().eq_ignore_ascii_case("q"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(accept: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        prefers_plain(&headers)
    }

    #[test]
    fn plain_json_must_weigh_more() {
        for accept in [
            "application/json",
            "application/json, application/hal+json;q=0.1",
            "application/hal+json;q=0, application/json",
            "application/json, */*;q=0.9",
            "application/json;q=0.2, */*;q=0.1",
            "application/json;charset=utf-8;Q=0.5,application/hal+json;q=0.4",
            "APPLICATION/JSON",
            "text/html, application/json",
        ] {
            assert!(plain(&[accept]), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/*",
            "text/html",
            "application/hal+json",
            "application/json, application/hal+json",
            "application/hal+json, application/json",
            "application/json, text/plain, */*",
            "application/json;q=0.1, */*",
            "application/json;q=0.1, application/*;q=0.2",
            "application/json;q=0.5, */*;q=0.9, application/hal+json;q=0.6",
            "application/json;q=0",
            "*/*;q=0",
            "json",
        ] {
            assert!(!plain(&[accept]), "{accept}");
        }
        assert!(!plain(&[]));
    }

    #[test]
    fn several_headers_are_as_one() {
        assert!(plain(&["application/hal+json;q=0.5", "application/json"]));
        assert!(!plain(&["application/json", "application/hal+json"]));
    }

    #[test]
    fn a_weight_that_is_none_is_as_if_it_were_not_there() {
        for weight in ["q=2", "q=-1", "q=NaN", "q=", "q", "=", "level=1"] {
            assert!(!plain(&[&format!("application/json, application/hal+json;{weight}")]), "{weight}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(accept in "[ -~]{0,80}") {
            let _ = plain(&[&accept]);
        }
    }
}
