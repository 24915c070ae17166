package eventlog

import "fmt"

// Type is the TCG event type (PFP 10.4.1, Intel TXT Software Development Guide, appendix on event types). It is not covered by any digest.
type Type uint32

// Event types that Touchstone has rules for. typeNames knows more by name.
const (
	PrebootCert          Type = 0x00
	PostCode             Type = 0x01
	NoAction             Type = 0x03
	Separator            Type = 0x04
	Action               Type = 0x05
	EventTag             Type = 0x06
	SCRTMContents        Type = 0x07
	SCRTMVersion         Type = 0x08
	CPUMicrocode         Type = 0x09
	PlatformConfigFlags  Type = 0x0a
	TableOfDevices       Type = 0x0b
	CompactHash          Type = 0x0c
	IPLType              Type = 0x0d
	IPLPartitionData     Type = 0x0e
	NonhostCode          Type = 0x0f
	NonhostConfig        Type = 0x10
	NonhostInfo          Type = 0x11
	OmitBootDeviceEvents Type = 0x12
	PostCode2            Type = 0x13

	EFIVariableDriverConfig    Type = 0x80000001
	EFIVariableBoot            Type = 0x80000002
	EFIBootServicesApplication Type = 0x80000003
	EFIBootServicesDriver      Type = 0x80000004
	EFIRuntimeServicesDriver   Type = 0x80000005
	EFIGPT                     Type = 0x80000006
	EFIAction                  Type = 0x80000007
	EFIPlatformFirmwareBlob    Type = 0x80000008
	EFIHandoffTables           Type = 0x80000009
	EFIPlatformFirmwareBlob2   Type = 0x8000000a
	EFIHandoffTables2          Type = 0x8000000b
	EFIVariableBoot2           Type = 0x8000000c
	EFIGPT2                    Type = 0x8000000d
	EFIHCRTM                   Type = 0x80000010
	EFIVariableAuthority       Type = 0x800000e0
	EFISPDMFirmwareBlob        Type = 0x800000e1
	EFISPDMFirmwareConfig      Type = 0x800000e2
	EFISPDMDevicePolicy        Type = 0x800000e3
	EFISPDMDeviceAuthority     Type = 0x800000e4
	TXTPCRMapping              Type = 0x401
	TXTHashStart               Type = 0x402
	TXTCombinedHash            Type = 0x403
	TXTMLEHash                 Type = 0x404
	TXTBIOSACRegData           Type = 0x40a
	TXTCPUSCRTMStat            Type = 0x40b
	TXTLCPControlHash          Type = 0x40c
	TXTElementsHash            Type = 0x40d
	TXTSTMHash                 Type = 0x40e
	TXTOSSinitDataCapHash      Type = 0x40f
	TXTSinitPubKeyHash         Type = 0x410
	TXTLCPHash                 Type = 0x411
	TXTLCPDetailsHash          Type = 0x412
	TXTLCPAuthoritiesHash      Type = 0x413
	TXTNVInfoHash              Type = 0x414
	TXTColdBootBIOSHash        Type = 0x415
	TXTKMHash                  Type = 0x416
	TXTBPMHash                 Type = 0x417
	TXTKMInfoHash              Type = 0x418
	TXTBPMInfoHash             Type = 0x419
	TXTBootPolHash             Type = 0x41a
	TXTRandomValue             Type = 0x4fe
	TXTCapValue                Type = 0x4ff
	TXTTbootMeasurement        Type = 0x501
	TXTSecureLaunch            Type = 0x502
	TXTSecureLaunchStart       Type = 0x503
	TXTSecureLaunchEnd         Type = 0x504
)

var typeNames = map[Type]string{
	PrebootCert:          "EV_PREBOOT_CERT",
	PostCode:             "EV_POST_CODE",
	0x02:                 "EV_UNUSED",
	NoAction:             "EV_NO_ACTION",
	Separator:            "EV_SEPARATOR",
	Action:               "EV_ACTION",
	EventTag:             "EV_EVENT_TAG",
	SCRTMContents:        "EV_S_CRTM_CONTENTS",
	SCRTMVersion:         "EV_S_CRTM_VERSION",
	CPUMicrocode:         "EV_CPU_MICROCODE",
	PlatformConfigFlags:  "EV_PLATFORM_CONFIG_FLAGS",
	TableOfDevices:       "EV_TABLE_OF_DEVICES",
	CompactHash:          "EV_COMPACT_HASH",
	IPLType:              "EV_IPL",
	IPLPartitionData:     "EV_IPL_PARTITION_DATA",
	NonhostCode:          "EV_NONHOST_CODE",
	NonhostConfig:        "EV_NONHOST_CONFIG",
	NonhostInfo:          "EV_NONHOST_INFO",
	OmitBootDeviceEvents: "EV_OMIT_BOOT_DEVICE_EVENTS",
	PostCode2:            "EV_POST_CODE2",

	EFIVariableDriverConfig:    "EV_EFI_VARIABLE_DRIVER_CONFIG",
	EFIVariableBoot:            "EV_EFI_VARIABLE_BOOT",
	EFIBootServicesApplication: "EV_EFI_BOOT_SERVICES_APPLICATION",
	EFIBootServicesDriver:      "EV_EFI_BOOT_SERVICES_DRIVER",
	EFIRuntimeServicesDriver:   "EV_EFI_RUNTIME_SERVICES_DRIVER",
	EFIGPT:                     "EV_EFI_GPT_EVENT",
	EFIAction:                  "EV_EFI_ACTION",
	EFIPlatformFirmwareBlob:    "EV_EFI_PLATFORM_FIRMWARE_BLOB",
	EFIHandoffTables:           "EV_EFI_HANDOFF_TABLES",
	EFIPlatformFirmwareBlob2:   "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
	EFIHandoffTables2:          "EV_EFI_HANDOFF_TABLES2",
	EFIVariableBoot2:           "EV_EFI_VARIABLE_BOOT2",
	EFIGPT2:                    "EV_EFI_GPT_EVENT2",
	EFIHCRTM:                   "EV_EFI_HCRTM_EVENT",
	EFIVariableAuthority:       "EV_EFI_VARIABLE_AUTHORITY",
	EFISPDMFirmwareBlob:        "EV_EFI_SPDM_FIRMWARE_BLOB",
	EFISPDMFirmwareConfig:      "EV_EFI_SPDM_FIRMWARE_CONFIG",
	EFISPDMDevicePolicy:        "EV_EFI_SPDM_DEVICE_POLICY",
	EFISPDMDeviceAuthority:     "EV_EFI_SPDM_DEVICE_AUTHORITY",

	TXTPCRMapping:         "TXT_PCR_MAPPING",
	TXTHashStart:          "TXT_HASH_START",
	TXTCombinedHash:       "TXT_COMBINED_HASH",
	TXTMLEHash:            "TXT_MLE_HASH",
	TXTBIOSACRegData:      "TXT_BIOSAC_REG_DATA",
	TXTCPUSCRTMStat:       "TXT_CPU_SCRTM_STAT",
	TXTLCPControlHash:     "TXT_LCP_CONTROL_HASH",
	TXTElementsHash:       "TXT_ELEMENTS_HASH",
	TXTSTMHash:            "TXT_STM_HASH",
	TXTOSSinitDataCapHash: "TXT_OSSINITDATA_CAP_HASH",
	TXTSinitPubKeyHash:    "TXT_SINIT_PUBKEY_HASH",
	TXTLCPHash:            "TXT_LCP_HASH",
	TXTLCPDetailsHash:     "TXT_LCP_DETAILS_HASH",
	TXTLCPAuthoritiesHash: "TXT_LCP_AUTHORITIES_HASH",
	TXTNVInfoHash:         "TXT_NV_INFO_HASH",
	TXTColdBootBIOSHash:   "TXT_COLD_BOOT_BIOS_HASH",
	TXTKMHash:             "TXT_KM_HASH",
	TXTBPMHash:            "TXT_BPM_HASH",
	TXTKMInfoHash:         "TXT_KM_INFO_HASH",
	TXTBPMInfoHash:        "TXT_BPM_INFO_HASH",
	TXTBootPolHash:        "TXT_BOOT_POL_HASH",
	TXTRandomValue:        "TXT_RANDOM_VALUE",
	TXTCapValue:           "TXT_CAP_VALUE",
	TXTTbootMeasurement:   "TXT_TBOOT_MEASUREMENT",
	TXTSecureLaunch:       "TXT_SLAUNCH",
	TXTSecureLaunchStart:  "TXT_SLAUNCH_START",
	TXTSecureLaunchEnd:    "TXT_SLAUNCH_END",
}

// String returns the name in the specification ("EV_SEPARATOR"), or the number of an unknown type ("0x00001234").
func (t Type) String() string {
	if n, ok := typeNames[t]; ok {
		return n
	}
	return fmt.Sprintf("0x%08x", uint32(t))
}

// Known reports whether t is in the specification or one of Intel TXT's. An unknown type in PCR 0 to 7 deserves a finding.
func (t Type) Known() bool {
	_, ok := typeNames[t]
	return ok
}

// TXT reports whether t is an event of a dynamic launch (Intel TXT, tboot, Secure Launch).
func (t Type) TXT() bool { return t >= 0x400 && t < 0x600 }
