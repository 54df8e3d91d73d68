//! The tags: one table that codec, error texts and conformance runner share.
//!
//! Source: KMIP Specification 1.4, section 9.1.3.1, and 2.1, section 11.55. The names are those of the XML encoding (KMIP Profiles 1.4, section 5.4.1.1): the specification's name without
//! spaces, a leading digit moved to the end, other characters as underscores.

#![allow(non_upper_case_globals)] // The names are the protocol's own.

use std::fmt;

/// What a TTLV item is: three bytes, `0x42` and a number for the tags of the specification, `0x54` for extensions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

macro_rules! tags {
    ($($number:literal $name:ident;)*) => {
        impl Tag {
            $(#[doc = concat!("`", stringify!($name), "`")] pub const $name: Tag = Tag(0x0042_0000 + $number);)*

            /// The name; `None` for a tag that is not in the table.
            pub fn name(self) -> Option<&'static str> {
                match self.0.wrapping_sub(0x0042_0000) { $($number => Some(stringify!($name)),)* _ => None }
            }

            /// The tag of a name.
            pub fn from_name(name: &str) -> Option<Tag> {
                match name { $(stringify!($name) => Some(Tag::$name),)* _ => None }
            }
        }
    };
}

tags! {
    0x0001 ActivationDate;
    0x0002 ApplicationData;
    0x0003 ApplicationNamespace;
    0x0004 ApplicationSpecificInformation;
    0x0005 ArchiveDate;
    0x0006 AsynchronousCorrelationValue;
    0x0007 AsynchronousIndicator;
    0x0008 Attribute;
    0x0009 AttributeIndex;
    0x000a AttributeName;
    0x000b AttributeValue;
    0x000c Authentication;
    0x000d BatchCount;
    0x000e BatchErrorContinuationOption;
    0x000f BatchItem;
    0x0010 BatchOrderOption;
    0x0011 BlockCipherMode;
    0x0012 CancellationResult;
    0x0013 Certificate;
    0x0014 CertificateIdentifier;
    0x0015 CertificateIssuer;
    0x0016 CertificateIssuerAlternativeName;
    0x0017 CertificateIssuerDistinguishedName;
    0x0018 CertificateRequest;
    0x0019 CertificateRequestType;
    0x001a CertificateSubject;
    0x001b CertificateSubjectAlternativeName;
    0x001c CertificateSubjectDistinguishedName;
    0x001d CertificateType;
    0x001e CertificateValue;
    0x001f CommonTemplateAttribute;
    0x0020 CompromiseDate;
    0x0021 CompromiseOccurrenceDate;
    0x0022 ContactInformation;
    0x0023 Credential;
    0x0024 CredentialType;
    0x0025 CredentialValue;
    0x0026 CriticalityIndicator;
    0x0027 CRTCoefficient;
    0x0028 CryptographicAlgorithm;
    0x0029 CryptographicDomainParameters;
    0x002a CryptographicLength;
    0x002b CryptographicParameters;
    0x002c CryptographicUsageMask;
    0x002d CustomAttribute;
    0x002e D;
    0x002f DeactivationDate;
    0x0030 DerivationData;
    0x0031 DerivationMethod;
    0x0032 DerivationParameters;
    0x0033 DestroyDate;
    0x0034 Digest;
    0x0035 DigestValue;
    0x0036 EncryptionKeyInformation;
    0x0037 G;
    0x0038 HashingAlgorithm;
    0x0039 InitialDate;
    0x003a InitializationVector;
    0x003b Issuer;
    0x003c IterationCount;
    0x003d IVCounterNonce;
    0x003e J;
    0x003f Key;
    0x0040 KeyBlock;
    0x0041 KeyCompressionType;
    0x0042 KeyFormatType;
    0x0043 KeyMaterial;
    0x0044 KeyPartIdentifier;
    0x0045 KeyValue;
    0x0046 KeyWrappingData;
    0x0047 KeyWrappingSpecification;
    0x0048 LastChangeDate;
    0x0049 LeaseTime;
    0x004a Link;
    0x004b LinkType;
    0x004c LinkedObjectIdentifier;
    0x004d MACSignature;
    0x004e MACSignatureKeyInformation;
    0x004f MaximumItems;
    0x0050 MaximumResponseSize;
    0x0051 MessageExtension;
    0x0052 Modulus;
    0x0053 Name;
    0x0054 NameType;
    0x0055 NameValue;
    0x0056 ObjectGroup;
    0x0057 ObjectType;
    0x0058 Offset;
    0x0059 OpaqueDataType;
    0x005a OpaqueDataValue;
    0x005b OpaqueObject;
    0x005c Operation;
    0x005d OperationPolicyName;
    0x005e P;
    0x005f PaddingMethod;
    0x0060 PrimeExponentP;
    0x0061 PrimeExponentQ;
    0x0062 PrimeFieldSize;
    0x0063 PrivateExponent;
    0x0064 PrivateKey;
    0x0065 PrivateKeyTemplateAttribute;
    0x0066 PrivateKeyUniqueIdentifier;
    0x0067 ProcessStartDate;
    0x0068 ProtectStopDate;
    0x0069 ProtocolVersion;
    0x006a ProtocolVersionMajor;
    0x006b ProtocolVersionMinor;
    0x006c PublicExponent;
    0x006d PublicKey;
    0x006e PublicKeyTemplateAttribute;
    0x006f PublicKeyUniqueIdentifier;
    0x0070 PutFunction;
    0x0071 Q;
    0x0072 QString;
    0x0073 Qlength;
    0x0074 QueryFunction;
    0x0075 RecommendedCurve;
    0x0076 ReplacedUniqueIdentifier;
    0x0077 RequestHeader;
    0x0078 RequestMessage;
    0x0079 RequestPayload;
    0x007a ResponseHeader;
    0x007b ResponseMessage;
    0x007c ResponsePayload;
    0x007d ResultMessage;
    0x007e ResultReason;
    0x007f ResultStatus;
    0x0080 RevocationMessage;
    0x0081 RevocationReason;
    0x0082 RevocationReasonCode;
    0x0083 KeyRoleType;
    0x0084 Salt;
    0x0085 SecretData;
    0x0086 SecretDataType;
    0x0087 SerialNumber;
    0x0088 ServerInformation;
    0x0089 SplitKey;
    0x008a SplitKeyMethod;
    0x008b SplitKeyParts;
    0x008c SplitKeyThreshold;
    0x008d State;
    0x008e StorageStatusMask;
    0x008f SymmetricKey;
    0x0090 Template;
    0x0091 TemplateAttribute;
    0x0092 TimeStamp;
    0x0093 UniqueBatchItemID;
    0x0094 UniqueIdentifier;
    0x0095 UsageLimits;
    0x0096 UsageLimitsCount;
    0x0097 UsageLimitsTotal;
    0x0098 UsageLimitsUnit;
    0x0099 Username;
    0x009a ValidityDate;
    0x009b ValidityIndicator;
    0x009c VendorExtension;
    0x009d VendorIdentification;
    0x009e WrappingMethod;
    0x009f X;
    0x00a0 Y;
    0x00a1 Password;
    0x00a2 DeviceIdentifier;
    0x00a3 EncodingOption;
    0x00a4 ExtensionInformation;
    0x00a5 ExtensionName;
    0x00a6 ExtensionTag;
    0x00a7 ExtensionType;
    0x00a8 Fresh;
    0x00a9 MachineIdentifier;
    0x00aa MediaIdentifier;
    0x00ab NetworkIdentifier;
    0x00ac ObjectGroupMember;
    0x00ad CertificateLength;
    0x00ae DigitalSignatureAlgorithm;
    0x00af CertificateSerialNumber;
    0x00b0 DeviceSerialNumber;
    0x00b1 IssuerAlternativeName;
    0x00b2 IssuerDistinguishedName;
    0x00b3 SubjectAlternativeName;
    0x00b4 SubjectDistinguishedName;
    0x00b5 X_509CertificateIdentifier;
    0x00b6 X_509CertificateIssuer;
    0x00b7 X_509CertificateSubject;
    0x00b8 KeyValueLocation;
    0x00b9 KeyValueLocationValue;
    0x00ba KeyValueLocationType;
    0x00bb KeyValuePresent;
    0x00bc OriginalCreationDate;
    0x00bd PGPKey;
    0x00be PGPKeyVersion;
    0x00bf AlternativeName;
    0x00c0 AlternativeNameValue;
    0x00c1 AlternativeNameType;
    0x00c2 Data;
    0x00c3 SignatureData;
    0x00c4 DataLength;
    0x00c5 RandomIV;
    0x00c6 MACData;
    0x00c7 AttestationType;
    0x00c8 Nonce;
    0x00c9 NonceID;
    0x00ca NonceValue;
    0x00cb AttestationMeasurement;
    0x00cc AttestationAssertion;
    0x00cd IVLength;
    0x00ce TagLength;
    0x00cf FixedFieldLength;
    0x00d0 CounterLength;
    0x00d1 InitialCounterValue;
    0x00d2 InvocationFieldLength;
    0x00d3 AttestationCapableIndicator;
    0x00d4 OffsetItems;
    0x00d5 LocatedItems;
    0x00d6 CorrelationValue;
    0x00d7 InitIndicator;
    0x00d8 FinalIndicator;
    0x00d9 RNGParameters;
    0x00da RNGAlgorithm;
    0x00db DRBGAlgorithm;
    0x00dc FIPS186Variation;
    0x00dd PredictionResistance;
    0x00de RandomNumberGenerator;
    0x00df ValidationInformation;
    0x00e0 ValidationAuthorityType;
    0x00e1 ValidationAuthorityCountry;
    0x00e2 ValidationAuthorityURI;
    0x00e3 ValidationVersionMajor;
    0x00e4 ValidationVersionMinor;
    0x00e5 ValidationType;
    0x00e6 ValidationLevel;
    0x00e7 ValidationCertificateIdentifier;
    0x00e8 ValidationCertificateURI;
    0x00e9 ValidationVendorURI;
    0x00ea ValidationProfile;
    0x00eb ProfileInformation;
    0x00ec ProfileName;
    0x00ed ServerURI;
    0x00ee ServerPort;
    0x00ef StreamingCapability;
    0x00f0 AsynchronousCapability;
    0x00f1 AttestationCapability;
    0x00f2 UnwrapMode;
    0x00f3 DestroyAction;
    0x00f4 ShreddingAlgorithm;
    0x00f5 RNGMode;
    0x00f6 ClientRegistrationMethod;
    0x00f7 CapabilityInformation;
    0x00f8 KeyWrapType;
    0x00f9 BatchUndoCapability;
    0x00fa BatchContinueCapability;
    0x00fb PKCS_12FriendlyName;
    0x00fc Description;
    0x00fd Comment;
    0x00fe AuthenticatedEncryptionAdditionalData;
    0x00ff AuthenticatedEncryptionTag;
    0x0100 SaltLength;
    0x0101 MaskGenerator;
    0x0102 MaskGeneratorHashingAlgorithm;
    0x0103 PSource;
    0x0104 TrailerField;
    0x0105 ClientCorrelationValue;
    0x0106 ServerCorrelationValue;
    0x0107 DigestedData;
    0x0108 CertificateSubjectCN;
    0x0109 CertificateSubjectO;
    0x010a CertificateSubjectOU;
    0x010b CertificateSubjectEmail;
    0x010c CertificateSubjectC;
    0x010d CertificateSubjectST;
    0x010e CertificateSubjectL;
    0x010f CertificateSubjectUID;
    0x0110 CertificateSubjectSerialNumber;
    0x0111 CertificateSubjectTitle;
    0x0112 CertificateSubjectDC;
    0x0113 CertificateSubjectDNQualifier;
    0x0114 CertificateIssuerCN;
    0x0115 CertificateIssuerO;
    0x0116 CertificateIssuerOU;
    0x0117 CertificateIssuerEmail;
    0x0118 CertificateIssuerC;
    0x0119 CertificateIssuerST;
    0x011a CertificateIssuerL;
    0x011b CertificateIssuerUID;
    0x011c CertificateIssuerSerialNumber;
    0x011d CertificateIssuerTitle;
    0x011e CertificateIssuerDC;
    0x011f CertificateIssuerDNQualifier;
    0x0120 Sensitive;
    0x0121 AlwaysSensitive;
    0x0122 Extractable;
    0x0123 NeverExtractable;
    0x0124 ReplaceExisting;
    0x0125 Attributes;
    0x0126 CommonAttributes;
    0x0127 PrivateKeyAttributes;
    0x0128 PublicKeyAttributes;
    0x0129 ExtensionEnumeration;
    0x012a ExtensionAttribute;
    0x012b ExtensionParentStructureTag;
    0x012c ExtensionDescription;
    0x012d ServerName;
    0x012e ServerSerialNumber;
    0x012f ServerVersion;
    0x0130 ServerLoad;
    0x0131 ProductName;
    0x0132 BuildLevel;
    0x0133 BuildDate;
    0x0134 ClusterInfo;
    0x0135 AlternateFailoverEndpoints;
    0x0136 ShortUniqueIdentifier;
    0x0137 Reserved;
    0x0138 Tag;
    0x0139 CertificateRequestUniqueIdentifier;
    0x013a NISTKeyType;
    0x013b AttributeReference;
    0x013c CurrentAttribute;
    0x013d NewAttribute;
    0x0140 CertificateRequestValue;
    0x0141 LogMessage;
    0x0142 ProfileVersion;
    0x0143 ProfileVersionMajor;
    0x0144 ProfileVersionMinor;
    0x0145 ProtectionLevel;
    0x0146 ProtectionPeriod;
    0x0147 QuantumSafe;
    0x0148 QuantumSafeCapability;
    0x0149 Ticket;
    0x014a TicketType;
    0x014b TicketValue;
    0x014c RequestCount;
    0x014d Rights;
    0x014e Objects;
    0x014f Operations;
    0x0150 Right;
    0x0151 EndpointRole;
    0x0152 DefaultsInformation;
    0x0153 ObjectDefaults;
    0x0154 Ephemeral;
    0x0155 ServerHashedPassword;
    0x0156 OneTimePassword;
    0x0157 HashedPassword;
    0x0158 AdjustmentType;
    0x0159 PKCS_11Interface;
    0x015a PKCS_11Function;
    0x015b PKCS_11InputParameters;
    0x015c PKCS_11OutputParameters;
    0x015d PKCS_11ReturnCode;
    0x015e ProtectionStorageMask;
    0x015f ProtectionStorageMasks;
    0x0160 InteropFunction;
    0x0161 InteropIdentifier;
    0x0162 AdjustmentValue;
    0x0163 CommonProtectionStorageMasks;
    0x0164 PrivateProtectionStorageMasks;
    0x0165 PublicProtectionStorageMasks;
    0x0166 ObjectGroups;
    0x0167 ObjectTypes;
    0x0168 Constraints;
    0x0169 Constraint;
    0x016a RotateInterval;
    0x016b RotateAutomatic;
    0x016c RotateOffset;
    0x016d RotateDate;
    0x016e RotateGeneration;
    0x016f RotateName;
    0x0170 RotateNameValue;
    0x0171 RotateNameType;
    0x0172 RotateLatest;
    0x0173 AsynchronousRequest;
    0x0174 SubmissionDate;
    0x0175 ProcessingStage;
    0x0176 AsynchronousCorrelationValues;
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:06x}", self.0),
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_both_ways() {
        assert_eq!(Tag::UniqueIdentifier.0, 0x0042_0094);
        assert_eq!(Tag::from_name("RandomNumberGenerator"), Some(Tag::RandomNumberGenerator));
        assert_eq!(Tag(0x0042_0094).name(), Some("UniqueIdentifier"));
        assert_eq!(Tag(0x0054_0001).to_string(), "0x540001");
        assert_eq!(Tag::from_name("Nonsense"), None);
    }
}
