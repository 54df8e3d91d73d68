//! Protocol versions.

use std::fmt;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The major number.
    pub major: u8,
    /// The minor number.
    pub minor: u8,
}

#[allow(missing_docs)]
impl Version {
    pub const V1_0: Version = Version { major: 1, minor: 0 };
    pub const V1_1: Version = Version { major: 1, minor: 1 };
    pub const V1_2: Version = Version { major: 1, minor: 2 };
    pub const V1_3: Version = Version { major: 1, minor: 3 };
    pub const V1_4: Version = Version { major: 1, minor: 4 };
    pub const V2_0: Version = Version { major: 2, minor: 0 };
    pub const V2_1: Version = Version { major: 2, minor: 1 };
}

impl Version {
    /// The versions that are spoken, the newest first, as Discover Versions lists them (KMIP Specification 1.4, section 4.26).
    pub const SUPPORTED: &'static [Version] = &[Self::V2_1, Self::V2_0, Self::V1_4, Self::V1_3, Self::V1_2, Self::V1_1, Self::V1_0];

    /// The version with those numbers, where it is spoken.
    pub fn supported(major: i32, minor: i32) -> Option<Version> {
        Self::SUPPORTED.iter().copied().find(|version| i32::from(version.major) == major && i32::from(version.minor) == minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
