//! The egress rule: a tenant's endpoint must not lead inside.
//!
//! A tenant chooses `host` and proxies. Without this rule it could make Keystead speak to the loopback interface, to the metadata service of the cloud (link-local), or to the cluster
//! itself, and read from the error messages what is there. So every address that a connection is really made to is checked, each time.

use ipnet::IpNet;
use std::net::IpAddr;
use std::str::FromStr;

/// Which addresses inside are allowed, and which are the cluster's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    allowed: Vec<Allowed>,
    own: Vec<IpAddr>,
}

/// One entry of `allow_endpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Allowed {
    target: Target,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Name(String),
    Net(IpNet),
}

/// An address that must not be connected to, or an entry of `allow_endpoints` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// Every address that the host stands for is inside.
    #[error("{host}:{port} leads inside ({why}); the cluster's administrator can allow it with allow_endpoints")]
    Inside {
        /// The host as given.
        host: String,
        /// The port.
        port: u16,
        /// What kind of inside.
        why: &'static str,
    },
    /// An entry that is neither a host, an address nor a CIDR, with an optional port.
    #[error("{0:?} is neither a host, an address nor a CIDR, with an optional port")]
    Entry(String),
}

impl Egress {
    /// Reads the entries of `allow_endpoints`: `127.0.0.1:4588`, `10.0.0.0/8`, `[::1]:443`, `fd00::/8`, `kms.local:4588`, `kms.local`.
    ///
    /// # Errors
    /// [`EgressError::Entry`].
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, EgressError> {
        let allowed = entries.iter().map(|entry| entry.as_ref().parse()).collect::<Result<_, _>>()?;
        Ok(Self { allowed, own: Vec::new() })
    }

    /// Names the cluster's own addresses, which are as much inside as the loopback interface.
    #[must_use]
    pub fn with_own_addresses(mut self, own: Vec<IpAddr>) -> Self {
        self.own = own.into_iter().map(|address| address.to_canonical()).collect();
        self
    }

    /// Whether an entry names this host, or the address that it is.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => self.allows_address(host, address, port),
            Err(_) => self.allowed.iter().any(|entry| entry.fits_port(port) && entry.names(host)),
        }
    }

    /// Checks one address that `host` stands for.
    ///
    /// # Errors
    /// [`EgressError::Inside`].
    pub fn check(&self, host: &str, address: IpAddr, port: u16) -> Result<(), EgressError> {
        match self.inside(address) {
            Some(why) if !self.allows_address(host, address, port) => Err(EgressError::Inside { host: host.to_owned(), port, why }),
            _ => Ok(()),
        }
    }

    fn allows_address(&self, host: &str, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|entry| {
            let fits = match &entry.target {
                Target::Net(net) => net.contains(&address),
                Target::Name(_) => entry.names(host),
            };
            fits && entry.fits_port(port)
        })
    }

    fn inside(&self, address: IpAddr) -> Option<&'static str> {
        let address = embedded(address);
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if address.is_loopback() || matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0) {
            Some("loopback")
        } else if address.is_unspecified() {
            Some("unspecified address")
        } else if link_local || is_metadata(address) {
            Some("link-local")
        } else if address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) {
            Some("multicast or broadcast")
        } else if self.own.contains(&address) {
            Some("an address of the cluster itself")
        } else {
            None
        }
    }
}

impl Allowed {
    fn names(&self, host: &str) -> bool {
        matches!(&self.target, Target::Name(name) if name.eq_ignore_ascii_case(host.strip_suffix('.').unwrap_or(host)))
    }

    fn fits_port(&self, port: u16) -> bool {
        self.port.is_none_or(|allowed| allowed == port)
    }
}

impl FromStr for Allowed {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let wrong = || EgressError::Entry(text.to_owned());
        let net = |host: &str| -> Option<IpNet> {
            let address = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
            address.parse::<IpNet>().ok().or_else(|| address.parse::<IpAddr>().ok().map(IpNet::from))
        };
        if let Some(net) = net(text) {
            return Ok(Self { target: Target::Net(net), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong)?)),
            None => (text, None),
        };
        if let Some(net) = net(host) {
            return Ok(Self { target: Target::Net(net), port });
        }
        crate::endpoint::check_name(host).map_err(|_| wrong())?;
        Ok(Self { target: Target::Name(host.strip_suffix('.').unwrap_or(host).to_lowercase()), port })
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped (RFC 4291, 2.5.5.2), compatible (2.5.5.1), NAT64 (RFC 6052, 2.1; RFC 8215) and 6to4 (RFC 3056).
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let [a, b, c, .., y, z] = v6.segments();
    let [y1, y2] = y.to_be_bytes();
    let [z1, z2] = z.to_be_bytes();
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, _, _] if !v6.is_loopback() && !v6.is_unspecified() => IpAddr::from([y1, y2, z1, z2]),
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, ..] => IpAddr::from([y1, y2, z1, z2]),
        [0x2002, ..] => {
            let ([b1, b2], [c1, c2]) = (b.to_be_bytes(), c.to_be_bytes());
            let _ = a;
            IpAddr::from([b1, b2, c1, c2])
        }
        _ => address,
    }
}

/// AWS's metadata service also answers on an address that is not link-local (EC2 User Guide, "Instance metadata").
fn is_metadata(address: IpAddr) -> bool {
    address == IpAddr::from([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(egress: &Egress, address: &str) -> bool {
        egress.check(address, address.parse().unwrap(), 443).is_err()
    }

    #[test]
    fn addresses_inside_are_refused_in_every_spelling() {
        let egress = Egress::default().with_own_addresses(vec!["10.9.8.7".parse().unwrap()]);
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fd00:ec2::254",
            "10.9.8.7",
            "::ffff:10.9.8.7",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert!(refused(&egress, address), "{address}");
        }
        for address in ["52.94.5.1", "10.1.2.3", "192.168.1.1", "2600:1f14::1", "64:ff9b::345e:501"] {
            assert!(!refused(&egress, address), "{address}");
        }
    }

    #[test]
    fn the_list_allows_hosts_addresses_and_networks_with_their_port() {
        let egress = Egress::parse(&["127.0.0.1:4588", "[::1]:443", "169.254.0.0/16", "kms.local:99", "proxy.local"]).unwrap();
        let check = |host: &str, address: &str, port| egress.check(host, address.parse().unwrap(), port).is_ok();
        assert!(check("127.0.0.1", "127.0.0.1", 4588));
        assert!(check("x", "::ffff:127.0.0.1", 4588));
        assert!(!check("127.0.0.1", "127.0.0.1", 4589));
        assert!(check("::1", "::1", 443) && !check("::1", "::1", 444));
        assert!(check("x", "169.254.1.1", 1));
        assert!(check("KMS.local", "127.0.0.9", 99) && !check("kms.local", "127.0.0.9", 98));
        assert!(egress.allows("proxy.local", 3128) && egress.allows("127.0.0.1", 4588) && !egress.allows("127.0.0.1", 1) && !egress.allows("other", 1));
    }

    #[test]
    fn entries_that_cannot_be_read_are_named() {
        for entry in ["", "a b", "127.0.0.1:0", "127.0.0.1:x", "10.0.0.0/33", "http://x", "x:70000"] {
            assert!(matches!(Egress::parse(&[entry]), Err(EgressError::Entry(text)) if text == entry), "{entry}");
        }
    }
}
