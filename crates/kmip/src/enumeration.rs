//! The enumerations and bit masks, in one table that codec, error texts and conformance runner share.
//!
//! Source: KMIP Specification 1.4, section 9.1.3.2 and 9.1.3.3, and 2.1, sections 11 and 12. Names are those of the XML encoding, as in [`crate::Tag`].

#![allow(non_camel_case_types, missing_docs, clippy::upper_case_acronyms)] // The names are the protocol's own, and say what there is to say.

use crate::tag::Tag;

/// A kind of enumeration, of which numbers and names can be asked.
pub trait Enumeration: Copy + Sized + 'static {
    /// Its name in the specification.
    const KIND: &'static str;
    /// The member with that number.
    fn from_number(number: u32) -> Option<Self>;
    /// The number on the wire.
    fn number(self) -> u32;
    /// The name in the XML encoding.
    fn name(self) -> &'static str;
}

macro_rules! enumerations {
    ($($kind:ident [$tag:ident] { $($name:ident = $number:literal)* })*) => {
        $(
            #[doc = concat!("The enumeration `", stringify!($kind), "`.")]
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            #[repr(u32)]
            pub enum $kind { $($name = $number,)* }

            impl Enumeration for $kind {
                const KIND: &'static str = stringify!($kind);
                fn from_number(number: u32) -> Option<Self> {
                    match number { $($number => Some($kind::$name),)* _ => None }
                }
                fn number(self) -> u32 { self as u32 }
                fn name(self) -> &'static str { match self { $($kind::$name => stringify!($name),)* } }
            }
        )*

        /// The name of an enumeration's member under a tag; `None` where tag or number are not in the table.
        pub fn member_name(tag: Tag, number: u32) -> Option<&'static str> {
            match tag {
                $(Tag::$tag => $kind::from_number(number).map($kind::name),)*
                _ => None,
            }
        }

        /// The number of an enumeration's member under a tag.
        pub fn member_number(tag: Tag, name: &str) -> Option<u32> {
            match tag {
                $(Tag::$tag => match name { $(stringify!($name) => Some($number),)* _ => None },)*
                _ => None,
            }
        }

        /// Whether the values of a tag are checked against a table: others, for example vendors' own, pass as numbers.
        pub fn has_table(tag: Tag) -> bool {
            match tag { $(Tag::$tag => true,)* _ => false }
        }
    };
}

enumerations! {
    AdjustmentType [AdjustmentType] { Increment = 1 Decrement = 2 Negate = 3 }
    BatchErrorContinuationOption [BatchErrorContinuationOption] { Continue = 1 Stop = 2 Undo = 3 }
    BlockCipherMode [BlockCipherMode] {
        CBC = 1 ECB = 2 PCBC = 3 CFB = 4 OFB = 5 CTR = 6 CMAC = 7 CCM = 8 GCM = 9 CBC_MAC = 10 XTS = 11 AESKeyWrapPadding = 12 NISTKeyWrap = 13 X9_102AESKW = 14 X9_102TDKW = 15
        X9_102AKW1 = 16 X9_102AKW2 = 17 AEAD = 18
    }
    CertificateType [CertificateType] { X_509 = 1 PGP = 2 }
    CredentialType [CredentialType] { UsernameAndPassword = 1 Device = 2 Attestation = 3 }
    CryptographicAlgorithm [CryptographicAlgorithm] {
        DES = 1 DES3 = 2 AES = 3 RSA = 4 DSA = 5 ECDSA = 6 HMAC_SHA1 = 7 HMAC_SHA224 = 8 HMAC_SHA256 = 9 HMAC_SHA384 = 10 HMAC_SHA512 = 11 HMAC_MD5 = 12 DH = 13 ECDH = 14 ECMQV = 15
        Blowfish = 16 Camellia = 17 CAST5 = 18 IDEA = 19 MARS = 20 RC2 = 21 RC4 = 22 RC5 = 23 SKIPJACK = 24 Twofish = 25 EC = 26 OneTimePad = 27 ChaCha20 = 28 Poly1305 = 29
        ChaCha20Poly1305 = 30 SHA3_224 = 31 SHA3_256 = 32 SHA3_384 = 33 SHA3_512 = 34 HMAC_SHA3_224 = 35 HMAC_SHA3_256 = 36 HMAC_SHA3_384 = 37 HMAC_SHA3_512 = 38 SHAKE_128 = 39
        SHAKE_256 = 40 ARIA = 41 SEED = 42 SM2 = 43 SM3 = 44 SM4 = 45 GOSTR34_10_2012 = 46 GOSTR34_11_2012 = 47 GOSTR34_13_2015 = 48 GOST28147_89 = 49 XMSS = 50 SPHINCS_256 = 51
        McEliece = 52 McEliece_6960119 = 53 McEliece_8192128 = 54 Ed25519 = 55 Ed448 = 56
    }
    DRBGAlgorithm [DRBGAlgorithm] { Unspecified = 1 Dual_EC = 2 Hash = 3 HMAC = 4 CTR = 5 }
    DigitalSignatureAlgorithm [DigitalSignatureAlgorithm] {
        MD2WithRSAEncryption = 1 MD5WithRSAEncryption = 2 SHA_1WithRSAEncryption = 3 SHA_224WithRSAEncryption = 4 SHA_256WithRSAEncryption = 5 SHA_384WithRSAEncryption = 6
        SHA_512WithRSAEncryption = 7 RSASSA_PSS = 8 DSAWithSHA_1 = 9 DSAWithSHA224 = 10 DSAWithSHA256 = 11 ECDSAWithSHA_1 = 12 ECDSAWithSHA224 = 13 ECDSAWithSHA256 = 14
        ECDSAWithSHA384 = 15 ECDSAWithSHA512 = 16 SHA3_256WithRSAEncryption = 17 SHA3_384WithRSAEncryption = 18 SHA3_512WithRSAEncryption = 19
    }
    EncodingOption [EncodingOption] { NoEncoding = 1 TTLVEncoding = 2 }
    HashingAlgorithm [HashingAlgorithm] {
        MD2 = 1 MD4 = 2 MD5 = 3 SHA_1 = 4 SHA_224 = 5 SHA_256 = 6 SHA_384 = 7 SHA_512 = 8 RIPEMD_160 = 9 Tiger = 10 Whirlpool = 11 SHA_512_224 = 12 SHA_512_256 = 13 SHA3_224 = 14
        SHA3_256 = 15 SHA3_384 = 16 SHA3_512 = 17
    }
    InteropFunction [InteropFunction] { Begin = 1 End = 2 Reset = 3 }
    KeyCompressionType [KeyCompressionType] {
        ECPublicKeyTypeUncompressed = 1 ECPublicKeyTypeX9_62CompressedPrime = 2 ECPublicKeyTypeX9_62CompressedChar2 = 3 ECPublicKeyTypeX9_62Hybrid = 4
    }
    KeyFormatType [KeyFormatType] {
        Raw = 1 Opaque = 2 PKCS_1 = 3 PKCS_8 = 4 X_509 = 5 ECPrivateKey = 6 TransparentSymmetricKey = 7 TransparentDSAPrivateKey = 8 TransparentDSAPublicKey = 9
        TransparentRSAPrivateKey = 10 TransparentRSAPublicKey = 11 TransparentDHPrivateKey = 12 TransparentDHPublicKey = 13 TransparentECDSAPrivateKey = 14
        TransparentECDSAPublicKey = 15 TransparentECDHPrivateKey = 16 TransparentECDHPublicKey = 17 TransparentECMQVPrivateKey = 18 TransparentECMQVPublicKey = 19
        TransparentECPrivateKey = 20 TransparentECPublicKey = 21 PKCS_12 = 22 PKCS_10 = 23
    }
    KeyRoleType [KeyRoleType] {
        BDK = 1 CVK = 2 DEK = 3 MKAC = 4 MKSMC = 5 MKSMI = 6 MKDAC = 7 MKDN = 8 MKCP = 9 MKOTH = 10 KEK = 11 MAC16609 = 12 MAC97971 = 13 MAC97972 = 14 MAC97973 = 15 MAC97974 = 16
        MAC97975 = 17 ZPK = 18 PVKIBM = 19 PVKPVV = 20 PVKOTH = 21 DUKPT = 22 IV = 23 TRKBK = 24
    }
    KeyWrapType [KeyWrapType] { NotWrapped = 1 AsRegistered = 2 }
    LinkType [LinkType] {
        CertificateLink = 0x101 PublicKeyLink = 0x102 PrivateKeyLink = 0x103 DerivationBaseObjectLink = 0x104 DerivedKeyLink = 0x105 ReplacementObjectLink = 0x106
        ReplacedObjectLink = 0x107 ParentLink = 0x108 ChildLink = 0x109 PreviousLink = 0x10a NextLink = 0x10b PKCS_12CertificateLink = 0x10c PKCS_12PasswordLink = 0x10d
        WrappingKeyLink = 0x10e
    }
    NameType [NameType] { UninterpretedTextString = 1 URI = 2 }
    NISTKeyType [NISTKeyType] {
        PrivateSignatureKey = 1 PublicSignatureVerificationKey = 2 SymmetricAuthenticationKey = 3 PrivateAuthenticationKey = 4 PublicAuthenticationKey = 5
        SymmetricDataEncryptionKey = 6 SymmetricKeyWrappingKey = 7 SymmetricRandomNumberGenerationKey = 8 SymmetricMasterKey = 9 PrivateKeyTransportKey = 10
        PublicKeyTransportKey = 11 SymmetricKeyAgreementKey = 12 PrivateStaticKeyAgreementKey = 13 PublicStaticKeyAgreementKey = 14 PrivateEphemeralKeyAgreementKey = 15
        PublicEphemeralKeyAgreementKey = 16 SymmetricAuthorizationKey = 17 PrivateAuthorizationKey = 18 PublicAuthorizationKey = 19
    }
    AlternativeNameType [AlternativeNameType] {
        UninterpretedTextString = 1 URI = 2 ObjectSerialNumber = 3 EmailAddress = 4 DNSName = 5 X_500DistinguishedName = 6 IPAddress = 7
    }
    KeyValueLocationType [KeyValueLocationType] { UninterpretedTextString = 1 URI = 2 }
    ObjectGroupMember [ObjectGroupMember] { GroupMemberFresh = 1 GroupMemberDefault = 2 }
    ObjectType [ObjectType] {
        Certificate = 1 SymmetricKey = 2 PublicKey = 3 PrivateKey = 4 SplitKey = 5 Template = 6 SecretData = 7 OpaqueObject = 8 PGPKey = 9 CertificateRequest = 10
    }
    Operation [Operation] {
        Create = 1 CreateKeyPair = 2 Register = 3 ReKey = 4 DeriveKey = 5 Certify = 6 ReCertify = 7 Locate = 8 Check = 9 Get = 10 GetAttributes = 11 GetAttributeList = 12
        AddAttribute = 13 ModifyAttribute = 14 DeleteAttribute = 15 ObtainLease = 16 GetUsageAllocation = 17 Activate = 18 Revoke = 19 Destroy = 20 Archive = 21 Recover = 22
        Validate = 23 Query = 24 Cancel = 25 Poll = 26 Notify = 27 Put = 28 ReKeyKeyPair = 29 DiscoverVersions = 30 Encrypt = 31 Decrypt = 32 Sign = 33 SignatureVerify = 34 MAC = 35
        MACVerify = 36 RNGRetrieve = 37 RNGSeed = 38 Hash = 39 CreateSplitKey = 40 JoinSplitKey = 41 Import = 42 Export = 43 Log = 44 Login = 45 Logout = 46 DelegatedLogin = 47
        AdjustAttribute = 48 SetAttribute = 49 SetEndpointRole = 50 PKCS_11 = 51 Interop = 52 ReProvision = 53 SetDefaults = 54 SetConstraints = 55 GetConstraints = 56
        QueryAsynchronousRequests = 57 Process = 58 Ping = 59
    }
    PaddingMethod [PaddingMethod] { None = 1 OAEP = 2 PKCS5 = 3 SSL3 = 4 Zeros = 5 ANSIX9_23 = 6 ISO10126 = 7 PKCS1V1_5 = 8 X9_31 = 9 PSS = 10 }
    ProtectionLevel [ProtectionLevel] { High = 1 Low = 2 }
    QueryFunction [QueryFunction] {
        QueryOperations = 1 QueryObjects = 2 QueryServerInformation = 3 QueryApplicationNamespaces = 4 QueryExtensionList = 5 QueryExtensionMap = 6 QueryAttestationTypes = 7
        QueryRNGs = 8 QueryValidations = 9 QueryProfiles = 10 QueryCapabilities = 11 QueryClientRegistrationMethods = 12
        QueryDefaultsInformation = 13 QueryStorageProtectionMasks = 14
    }
    RNGAlgorithm [RNGAlgorithm] { Unspecified = 1 FIPS186_2 = 2 DRBG = 3 NRBG = 4 ANSIX9_31 = 5 ANSIX9_62 = 6 }
    ResultReason [ResultReason] {
        ItemNotFound = 0x001 ResponseTooLarge = 0x002 AuthenticationNotSuccessful = 0x003 InvalidMessage = 0x004 OperationNotSupported = 0x005 MissingData = 0x006 InvalidField = 0x007
        FeatureNotSupported = 0x008 OperationCanceledByRequester = 0x009 CryptographicFailure = 0x00a IllegalOperation = 0x00b PermissionDenied = 0x00c ObjectArchived = 0x00d
        IndexOutOfBounds = 0x00e ApplicationNamespaceNotSupported = 0x00f KeyFormatTypeNotSupported = 0x010 KeyCompressionTypeNotSupported = 0x011 EncodingOptionError = 0x012
        KeyValueNotPresent = 0x013 AttestationRequired = 0x014 AttestationFailed = 0x015 Sensitive = 0x016 NotExtractable = 0x017 ObjectAlreadyExists = 0x018
        InvalidTicket = 0x019 UsageLimitExceeded = 0x01a NumericRange = 0x01b InvalidDataType = 0x01c ReadOnlyAttribute = 0x01d MultiValuedAttribute = 0x01e UnsupportedAttribute = 0x01f
        AttributeInstanceNotFound = 0x020 AttributeNotFound = 0x021 AttributeReadOnly = 0x022 AttributeSingleValued = 0x023 BadCryptographicParameters = 0x024 BadPassword = 0x025
        CodecError = 0x026 IllegalObjectType = 0x028 IncompatibleCryptographicUsageMask = 0x029 InternalServerError = 0x02a InvalidAsynchronousCorrelationValue = 0x02b
        InvalidAttribute = 0x02c InvalidAttributeValue = 0x02d InvalidCorrelationValue = 0x02e InvalidCSR = 0x02f InvalidObjectType = 0x030 KeyWrapTypeNotSupported = 0x032
        MissingInitializationVector = 0x034 NonUniqueNameAttribute = 0x035 ObjectDestroyed = 0x036 ObjectNotFound = 0x037 NotAuthorised = 0x039 ServerLimitExceeded = 0x03a
        UnknownEnumeration = 0x03b UnknownMessageExtension = 0x03c UnknownTag = 0x03d UnsupportedCryptographicParameters = 0x03e UnsupportedProtocolVersion = 0x03f
        WrappingObjectArchived = 0x040 WrappingObjectDestroyed = 0x041 WrappingObjectNotFound = 0x042 WrongKeyLifecycleState = 0x043 ProtectionStorageUnavailable = 0x044
        PKCS_11CodecError = 0x045 PKCS_11InvalidFunction = 0x046 PKCS_11InvalidInterface = 0x047 PrivateProtectionStorageUnavailable = 0x048
        PublicProtectionStorageUnavailable = 0x049 UnknownObjectGroup = 0x04a ConstraintViolation = 0x04b DuplicateProcessRequest = 0x04c GeneralFailure = 0x100
    }
    ResultStatus [ResultStatus] { Success = 0 OperationFailed = 1 OperationPending = 2 OperationUndone = 3 }
    RevocationReasonCode [RevocationReasonCode] {
        Unspecified = 1 KeyCompromise = 2 CACompromise = 3 AffiliationChanged = 4 Superseded = 5 CessationOfOperation = 6 PrivilegeWithdrawn = 7
    }
    SecretDataType [SecretDataType] { Password = 1 Seed = 2 }
    State [State] { PreActive = 1 Active = 2 Deactivated = 3 Compromised = 4 Destroyed = 5 DestroyedCompromised = 6 }
    UsageLimitsUnit [UsageLimitsUnit] { Byte = 1 Object = 2 }
    WrappingMethod [WrappingMethod] { Encrypt = 1 MACSign = 2 EncryptThenMACSign = 3 MACSignThenEncrypt = 4 TR_31 = 5 }
    ProfileName [ProfileName] {
        BaselineServerBasicKMIPV1_2 = 1 BaselineServerTLSV1_2KMIPV1_2 = 2 SymmetricKeyLifecycleServerKMIPV1_0 = 0x15 SymmetricKeyFoundryServerKMIPV1_0 = 0x0f
    }
}

macro_rules! masks {
    ($($tag:ident { $($name:ident = $bit:literal)* })*) => {
        /// The bits of a mask with their names, the lowest first; `None` for a tag that is no mask.
        pub fn mask_bits(tag: Tag) -> Option<&'static [(&'static str, u32)]> {
            match tag {
                $(Tag::$tag => Some(&[$((stringify!($name), $bit)),*]),)*
                _ => None,
            }
        }
    };
}

masks! {
    CryptographicUsageMask {
        Sign = 0x1 Verify = 0x2 Encrypt = 0x4 Decrypt = 0x8 WrapKey = 0x10 UnwrapKey = 0x20 Export = 0x40 MACGenerate = 0x80 MACVerify = 0x100 DeriveKey = 0x200 ContentCommitment = 0x400
        KeyAgreement = 0x800 CertificateSign = 0x1000 CRLSign = 0x2000 GenerateCryptogram = 0x4000 ValidateCryptogram = 0x8000 TranslateEncrypt = 0x10000 TranslateDecrypt = 0x20000
        TranslateWrap = 0x40000 TranslateUnwrap = 0x80000 Authenticate = 0x100000 Unrestricted = 0x200000 FPEEncrypt = 0x400000 FPEDecrypt = 0x800000
    }
    ProtectionStorageMask {
        Software = 0x1 Hardware = 0x2 OnProcessor = 0x4 OnSystem = 0x8 OffSystem = 0x10 Hypervisor = 0x20 OperatingSystem = 0x40 Container = 0x80 OnPremises = 0x100
        OffPremises = 0x200 SelfManaged = 0x400 Outsourced = 0x800 Validated = 0x1000 SameJurisdiction = 0x2000
    }
    StorageStatusMask { OnlineStorage = 0x1 ArchivalStorage = 0x2 DestroyedStorage = 0x4 }
}

/// The usage mask's bit that lets a key wrap others.
pub const WRAP_KEY: i32 = 0x10;
/// The usage mask's bit that lets a key encrypt.
pub const ENCRYPT: i32 = 0x4;
/// The usage mask's bit that lets a key decrypt.
pub const DECRYPT: i32 = 0x8;
/// The usage mask's bit that lets a key do everything (2.1, section 12.1).
pub const UNRESTRICTED: i32 = 0x20_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_both_ways() {
        assert_eq!(member_name(Tag::CryptographicAlgorithm, 3), Some("AES"));
        assert_eq!(member_number(Tag::CryptographicAlgorithm, "DES3"), Some(2));
        assert_eq!(member_number(Tag::State, "Nonsense"), None);
        assert_eq!(ResultReason::from_number(0x100).map(ResultReason::name), Some("GeneralFailure"));
        assert!(has_table(Tag::Operation) && !has_table(Tag::UniqueIdentifier));
    }
}
