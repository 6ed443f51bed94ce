package wire

import (
	"strconv"
	"strings"
)

// Type is a record type, as in the IANA registry.
type Type = uint16

// Record types that this module names. Any other is carried as it is.
const (
	TypeNone       Type = 0
	TypeA          Type = 1
	TypeNS         Type = 2
	TypeMD         Type = 3
	TypeMF         Type = 4
	TypeCNAME      Type = 5
	TypeSOA        Type = 6
	TypeMB         Type = 7
	TypeMG         Type = 8
	TypeMR         Type = 9
	TypeNULL       Type = 10
	TypeWKS        Type = 11
	TypePTR        Type = 12
	TypeHINFO      Type = 13
	TypeMINFO      Type = 14
	TypeMX         Type = 15
	TypeTXT        Type = 16
	TypeRP         Type = 17
	TypeAFSDB      Type = 18
	TypeRT         Type = 21
	TypeSIG        Type = 24
	TypeKEY        Type = 25
	TypePX         Type = 26
	TypeAAAA       Type = 28
	TypeLOC        Type = 29
	TypeNXT        Type = 30
	TypeSRV        Type = 33
	TypeNAPTR      Type = 35
	TypeKX         Type = 36
	TypeCERT       Type = 37
	TypeDNAME      Type = 39
	TypeOPT        Type = 41
	TypeAPL        Type = 42
	TypeDS         Type = 43
	TypeSSHFP      Type = 44
	TypeIPSECKEY   Type = 45
	TypeRRSIG      Type = 46
	TypeNSEC       Type = 47
	TypeDNSKEY     Type = 48
	TypeDHCID      Type = 49
	TypeNSEC3      Type = 50
	TypeNSEC3PARAM Type = 51
	TypeTLSA       Type = 52
	TypeSMIMEA     Type = 53
	TypeHIP        Type = 55
	TypeCDS        Type = 59
	TypeCDNSKEY    Type = 60
	TypeOPENPGPKEY Type = 61
	TypeCSYNC      Type = 62
	TypeZONEMD     Type = 63
	TypeSVCB       Type = 64
	TypeHTTPS      Type = 65
	TypeSPF        Type = 99
	TypeEUI48      Type = 108
	TypeEUI64      Type = 109
	TypeTKEY       Type = 249
	TypeTSIG       Type = 250
	TypeIXFR       Type = 251
	TypeAXFR       Type = 252
	TypeMAILB      Type = 253
	TypeMAILA      Type = 254
	TypeANY        Type = 255
	TypeURI        Type = 256
	TypeCAA        Type = 257
)

// Classes.
const (
	ClassIN   uint16 = 1
	ClassCH   uint16 = 3
	ClassHS   uint16 = 4
	ClassNONE uint16 = 254
	ClassANY  uint16 = 255
)

// Response codes. Those above 15 exist only together with an OPT record (RFC 6891 section 6.1.3).
const (
	RcodeSuccess  uint16 = 0
	RcodeFormErr  uint16 = 1
	RcodeServFail uint16 = 2
	RcodeNXDomain uint16 = 3
	RcodeNotImp   uint16 = 4
	RcodeRefused  uint16 = 5
	RcodeYXDomain uint16 = 6
	RcodeNotAuth  uint16 = 9
	RcodeBadVers  uint16 = 16
)

// Extended DNS Errors (RFC 8914 section 4) that this module sends.
const (
	EDEStale          uint16 = 3
	EDECachedError    uint16 = 13
	EDENotReady       uint16 = 14
	EDEBlocked        uint16 = 15
	EDEFiltered       uint16 = 17
	EDEProhibited     uint16 = 18
	EDEStaleNXDomain  uint16 = 19
	EDENotAuth        uint16 = 20
	EDENotSupported   uint16 = 21
	EDENoReachable    uint16 = 22
	EDENetworkError   uint16 = 23
	EDEInvalidData    uint16 = 24
	EDEOther          uint16 = 0xffff // sent as info-code 0, since a field left 0 means none
	maxEDEText               = 160    // bytes; more would only push records out of the answer
	advertisedUDPSize        = 1232   // what we accept ourselves: fits one IPv6 packet anywhere (RFC 9715)
)

var typeNames = map[Type]string{
	TypeA: "A", TypeNS: "NS", TypeMD: "MD", TypeMF: "MF", TypeCNAME: "CNAME", TypeSOA: "SOA", TypeMB: "MB", TypeMG: "MG",
	TypeMR: "MR", TypeNULL: "NULL", TypeWKS: "WKS", TypePTR: "PTR", TypeHINFO: "HINFO", TypeMINFO: "MINFO", TypeMX: "MX",
	TypeTXT: "TXT", TypeRP: "RP", TypeAFSDB: "AFSDB", TypeRT: "RT", TypeSIG: "SIG", TypeKEY: "KEY", TypePX: "PX",
	TypeAAAA: "AAAA", TypeLOC: "LOC", TypeNXT: "NXT", TypeSRV: "SRV", TypeNAPTR: "NAPTR", TypeKX: "KX", TypeCERT: "CERT",
	TypeDNAME: "DNAME", TypeOPT: "OPT", TypeAPL: "APL", TypeDS: "DS", TypeSSHFP: "SSHFP", TypeIPSECKEY: "IPSECKEY",
	TypeRRSIG: "RRSIG", TypeNSEC: "NSEC", TypeDNSKEY: "DNSKEY", TypeDHCID: "DHCID", TypeNSEC3: "NSEC3",
	TypeNSEC3PARAM: "NSEC3PARAM", TypeTLSA: "TLSA", TypeSMIMEA: "SMIMEA", TypeHIP: "HIP", TypeCDS: "CDS",
	TypeCDNSKEY: "CDNSKEY", TypeOPENPGPKEY: "OPENPGPKEY", TypeCSYNC: "CSYNC", TypeZONEMD: "ZONEMD", TypeSVCB: "SVCB",
	TypeHTTPS: "HTTPS", TypeSPF: "SPF", TypeEUI48: "EUI48", TypeEUI64: "EUI64", TypeTKEY: "TKEY", TypeTSIG: "TSIG",
	TypeIXFR: "IXFR", TypeAXFR: "AXFR", TypeMAILB: "MAILB", TypeMAILA: "MAILA", TypeANY: "ANY", TypeURI: "URI",
	TypeCAA: "CAA",
}

var typeNumbers = func() map[string]Type {
	m := make(map[string]Type, len(typeNames))
	for t, s := range typeNames {
		m[s] = t
	}
	return m
}()

// TypeString returns the mnemonic of a type, or TYPEn (RFC 3597 section 5) for one it does not know.
func TypeString(t Type) string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// ParseType reads a mnemonic or TYPEn, in any letter case.
func ParseType(s string) (Type, bool) {
	s = strings.ToUpper(s)
	if t, ok := typeNumbers[s]; ok {
		return t, true
	}
	digits, ok := strings.CutPrefix(s, "TYPE")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return Type(n), err == nil
}

var rcodeNames = map[uint16]string{
	RcodeSuccess: "NOERROR", RcodeFormErr: "FORMERR", RcodeServFail: "SERVFAIL", RcodeNXDomain: "NXDOMAIN",
	RcodeNotImp: "NOTIMP", RcodeRefused: "REFUSED", RcodeYXDomain: "YXDOMAIN", 7: "YXRRSET", 8: "NXRRSET",
	RcodeNotAuth: "NOTAUTH", 10: "NOTZONE", RcodeBadVers: "BADVERS", 23: "BADCOOKIE",
}

// RcodeString returns the mnemonic of a response code, or RCODEn for one it does not know.
func RcodeString(rcode uint16) string {
	if s, ok := rcodeNames[rcode]; ok {
		return s
	}
	return "RCODE" + strconv.Itoa(int(rcode))
}
