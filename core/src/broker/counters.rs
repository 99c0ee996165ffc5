//! What the broker has refused and ended since its start.

use crate::table::{AcquireError, ConvertError, OpenError, RenewError, Resource};
use crate::wire::{FaultKind, Status};

/// Every kind of fault, in the order of [`FaultKind`], and its name in counters and in
/// live-mutex's error lines.
pub(super) const fn fault_name(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Magic => "magic",
        FaultKind::Malformed => "malformed",
        FaultKind::FrameTooLong => "frame_too_long",
        FaultKind::OutOfOrder => "out_of_order",
        FaultKind::Unauthorized => "unauthorized",
        FaultKind::Full => "full",
        FaultKind::Idle => "idle",
        FaultKind::SlowReader => "slow_reader",
        FaultKind::TakenOver => "taken_over",
    }
}

/// The counting half of a [`Status`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters(pub(super) Status);

impl Counters {
    pub(super) fn fault(&mut self, kind: FaultKind) {
        let status = &mut self.0;
        status.faults += 1;
        *match kind {
            FaultKind::Magic => &mut status.faults_magic,
            FaultKind::Malformed => &mut status.faults_malformed,
            FaultKind::FrameTooLong => &mut status.faults_frame_too_long,
            FaultKind::OutOfOrder => &mut status.faults_out_of_order,
            FaultKind::Unauthorized => &mut status.faults_unauthorized,
            FaultKind::Full => &mut status.faults_full,
            FaultKind::Idle => &mut status.faults_idle,
            FaultKind::SlowReader => &mut status.faults_slow_reader,
            FaultKind::TakenOver => &mut status.faults_taken_over,
        } += 1;
    }

    pub(super) fn connection_refused(&mut self) {
        self.0.refused += 1;
        self.0.refused_connections += 1;
    }

    pub(super) fn open(&mut self, error: OpenError) {
        match error {
            OpenError::Full { .. } => {
                self.0.refused += 1;
                self.0.refused_sessions += 1;
            }
            OpenError::WindowTooLong { .. } => self.0.refused_invalid += 1,
        }
    }

    pub(super) fn acquire(&mut self, error: AcquireError) {
        let status = &mut self.0;
        match error {
            AcquireError::Busy => status.refused_busy += 1,
            AcquireError::Full { what, .. } => {
                status.refused += 1;
                *match what {
                    Resource::Keys => &mut status.refused_keys,
                    Resource::Requests | Resource::Claims => &mut status.refused_requests,
                    Resource::RequestsOfSession => &mut status.refused_requests_per_session,
                    Resource::Bytes => &mut status.refused_bytes,
                } += 1;
            }
            AcquireError::UnknownSession => status.refused_absent += 1,
            AcquireError::IdInUse
            | AcquireError::Deadlock { .. }
            | AcquireError::ReclaimConflict
            | AcquireError::ReclaimTooLate => status.refused_conflicts += 1,
            _ => status.refused_invalid += 1,
        }
    }

    pub(super) fn renew(&mut self, error: RenewError) {
        match error {
            RenewError::LeaseZero | RenewError::LeaseTooLong { .. } => {
                self.0.refused_invalid += 1;
            }
            _ => self.0.refused_absent += 1,
        }
    }

    pub(super) fn convert(&mut self, error: ConvertError) {
        match error {
            ConvertError::NotHeld | ConvertError::NotOwner => self.0.refused_absent += 1,
            ConvertError::UpgradeConflict | ConvertError::Deadlock { .. } => {
                self.0.refused_conflicts += 1;
            }
            ConvertError::NotConvertible => self.0.refused_invalid += 1,
        }
    }
}
