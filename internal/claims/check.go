package claims

import (
	"slices"

	"touchstone.dev/touchstone/internal/eventlog"
)

// typesOf lists the event types that may appear in PCR 0 to 7 (PC Client PFP 3.3.4 and 10.4). An event type is not covered by any
// digest: a type that does not belong where it stands may hide what was measured, so it is reported and not read further.
var typesOf = [8][]eventlog.Type{
	0: {eventlog.SCRTMContents, eventlog.SCRTMVersion, eventlog.PostCode, eventlog.PostCode2, eventlog.EFIPlatformFirmwareBlob, eventlog.EFIPlatformFirmwareBlob2,
		eventlog.EFIHCRTM, eventlog.NonhostCode, eventlog.NonhostInfo, eventlog.EFIBootServicesDriver, eventlog.EFIRuntimeServicesDriver,
		eventlog.EFIHandoffTables, eventlog.EFIHandoffTables2, eventlog.EventTag, eventlog.EFIAction, eventlog.Action, eventlog.EFIVariableDriverConfig},
	1: {eventlog.CPUMicrocode, eventlog.PlatformConfigFlags, eventlog.TableOfDevices, eventlog.NonhostConfig, eventlog.NonhostInfo, eventlog.EFIHandoffTables,
		eventlog.EFIHandoffTables2, eventlog.EFIVariableBoot, eventlog.EFIVariableBoot2, eventlog.EFIVariableDriverConfig, eventlog.EventTag, eventlog.EFIAction, eventlog.Action,
		eventlog.PostCode, eventlog.PostCode2, eventlog.EFIPlatformFirmwareBlob, eventlog.EFIPlatformFirmwareBlob2, eventlog.SCRTMContents, eventlog.EFISPDMFirmwareConfig},
	2: {eventlog.EFIBootServicesDriver, eventlog.EFIRuntimeServicesDriver, eventlog.EFIBootServicesApplication, eventlog.EFIPlatformFirmwareBlob,
		eventlog.EFIPlatformFirmwareBlob2, eventlog.EFISPDMFirmwareBlob, eventlog.EFIAction, eventlog.Action, eventlog.EventTag, eventlog.NonhostCode, eventlog.NonhostInfo,
		eventlog.PostCode, eventlog.PostCode2, eventlog.EFIVariableDriverConfig},
	3: {eventlog.EFIVariableDriverConfig, eventlog.EventTag, eventlog.NonhostConfig, eventlog.NonhostInfo, eventlog.EFISPDMFirmwareConfig, eventlog.EFIAction, eventlog.Action,
		eventlog.EFIHandoffTables, eventlog.EFIHandoffTables2, eventlog.PlatformConfigFlags},
	4: {eventlog.EFIBootServicesApplication, eventlog.EFIBootServicesDriver, eventlog.EFIRuntimeServicesDriver, eventlog.EFIAction, eventlog.Action,
		eventlog.OmitBootDeviceEvents},
	5: {eventlog.EFIGPT, eventlog.EFIGPT2, eventlog.EFIAction, eventlog.Action, eventlog.EFIVariableBoot, eventlog.EFIVariableBoot2, eventlog.EFIVariableDriverConfig,
		eventlog.EventTag, eventlog.IPLPartitionData, eventlog.IPLType},
	6: {eventlog.CompactHash, eventlog.EFIAction, eventlog.Action, eventlog.EventTag, eventlog.EFIVariableDriverConfig},
	7: {eventlog.EFIVariableDriverConfig, eventlog.EFIVariableAuthority, eventlog.EFIAction, eventlog.EFISPDMDevicePolicy, eventlog.EFISPDMDeviceAuthority},
}

// checkEvent reports what does not fit in an event, and whether its content may be read.
func (b *Boot) checkEvent(e *eventlog.Event) bool {
	switch {
	case e.PCR <= 7 && !e.Type.Known():
		b.problem(e, "event of unknown type %v", e.Type)
		return false
	case e.PCR <= 7 && e.Type != eventlog.Separator && !slices.Contains(typesOf[e.PCR], e.Type):
		b.problem(e, "event of type %v does not belong into PCR %d", e.Type, e.PCR)
		return false
	case e.Type == eventlog.SCRTMVersion && e.PCR == 0 && !b.dataMatches(e):
		// Some firmware measures another form of its version than it logs. The digest is judged all the same, only the text is worth nothing.
		b.VersionUncovered = e
		return false
	case e.Measures() == eventlog.MeasuresData && !b.dataMatches(e):
		b.problem(e, "the data of the event do not hash to its digest: type or data were changed")
		return false
	}
	if e.Type == eventlog.Separator {
		if k, err := e.Separator(); err != nil || k != eventlog.SeparatorNormal {
			b.problem(e, "separator says %v: the firmware reports that it failed to measure", k)
		}
	}
	return true
}

// dataMatches holds the data against the digest of every bank of the log: one bank may not tell another story.
func (b *Boot) dataMatches(e *eventlog.Event) bool {
	for _, a := range b.Log.Algs {
		if !e.DataMatches(a) {
			return false
		}
	}
	return true
}
