//! The page of `/metrics`, as a test reads it.

use super::Node;
use std::collections::{BTreeMap, BTreeSet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A page in the text format of Prometheus.
pub struct Page {
    pub text: String,
    /// Each sample, by its name with labels as they stand.
    samples: BTreeMap<String, f64>,
}

/// A metric: its type, and the names of the labels that its samples have.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub struct Metric {
    pub kind: String,
    pub labels: BTreeSet<String>,
}

impl Page {
    pub fn new(text: String) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no value: {line}")))
        });
        let samples: Vec<_> = samples.collect();
        let unique: BTreeMap<_, _> = samples.iter().cloned().collect();
        assert_eq!(unique.len(), samples.len(), "a series stands there twice: {text}");
        Self { samples: unique, text }
    }

    /// The page of a node, as `admin`.
    pub async fn of(node: &Node) -> Self {
        let (status, text) = fetch(node.client.get(format!("https://{}/metrics", node.address)).basic_auth("admin", Some(super::PASSWORD))).await;
        assert_eq!(status, 200, "{text}");
        Self::new(text)
    }

    /// The page at `[metrics] listen` of this port.
    pub async fn plain(port: u16) -> Self {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        Self::new(answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// The value of a sample, with its labels as they stand; `None`: there is no such sample.
    pub fn find(&self, sample: &str) -> Option<f64> {
        self.samples.get(sample).copied()
    }

    pub fn value(&self, sample: &str) -> f64 {
        self.find(sample).unwrap_or_else(|| panic!("there is no {sample} in\n{}", self.text))
    }

    /// The samples of a metric.
    pub fn of_metric<'p>(&'p self, metric: &str) -> impl Iterator<Item = (&'p str, f64)> {
        let (exact, labelled) = (metric.to_owned(), format!("{metric}{{"));
        self.samples.iter().filter(move |(name, _)| **name == exact || name.starts_with(&labelled)).map(|(name, value)| (name.as_str(), *value))
    }

    /// All metrics. Each has a help and a type.
    pub fn metrics(&self) -> BTreeMap<String, Metric> {
        let mut metrics = BTreeMap::new();
        let mut lines = self.text.lines();
        let mut current = String::new();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(help.ends_with('.') && help.len() > 10, "{line}");
                let (of, kind) = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
                assert_eq!(of, name);
                name.clone_into(&mut current);
                assert!(metrics.insert(name.to_owned(), Metric { kind: kind.to_owned(), ..Metric::default() }).is_none(), "{name} stands there twice");
                continue;
            }
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let metric = metrics.get_mut(&current).unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|suffix| name.strip_suffix(suffix) == Some(&current)) && metric.kind == "histogram";
            assert!(name == current || of_histogram, "{line} stands under {current}");
            // No value that is tested has a comma and an equals sign in it.
            let names = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            metric.labels.extend(names.filter(|name| !(of_histogram && name == "le")));
        }
        metrics
    }
}

/// Sends a request. Answers status and text.
pub async fn fetch(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}
