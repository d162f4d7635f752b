//! The whole table: role, part in the VM, permission and scope against each action.

use super::*;

fn actor(role: Role, permissions: &[Permission]) -> Actor {
    Actor::new(UserId::generate(), "somebody".to_owned(), role, permissions.iter().copied().collect())
}

/// What each may do, worked out a second time from the sentences of the documentation: see, use, own.
fn standing(role: Role, owns: bool, share: Option<Share>) -> (bool, bool, bool) {
    let sees = owns || share.is_some() || role != Role::Member;
    let changes = role != Role::ReadOnly;
    let uses = changes && (owns || share == Some(Share::Use) || matches!(role, Role::Operator | Role::Admin));
    (sees, uses, changes && (owns || role == Role::Admin))
}

#[test]
fn of_every_role_part_and_permission() {
    let vm = VmId::generate();
    let mut rows = 0;
    for role in Role::ALL {
        for owns in [false, true] {
            for share in [None, Some(Share::View), Some(Share::Use)] {
                for permissions in [&[][..], &Permission::ALL] {
                    let mut actor = actor(role, permissions);
                    actor.shares = Arc::new(share.map(|share| (vm, share)).into_iter().collect());
                    let owner = if owns { actor.user } else { UserId::generate() };
                    let target = Target { vm, owner: Some(owner) };
                    let (sees, uses, decides) = standing(role, owns, share);
                    let shell = uses && !permissions.is_empty();
                    for (action, may) in [
                        (Action::ViewVm(target), sees),
                        (Action::ControlVm(target), uses),
                        (Action::SafeCommand(target), uses),
                        (Action::UnsafeCommand(target), shell),
                        (Action::OwnVm(target), decides),
                    ] {
                        let told = authorize(&actor, action);
                        let row =
                            format!("{role}, owns {owns}, share {share:?}, {permissions:?}: {action:?}");
                        assert_eq!(told.is_ok(), may, "{row}");
                        // Only who sees it is told that it is there.
                        assert_eq!(told == Err(Denied::NotFound), !sees, "{row}");
                        rows += 1;
                    }
                    assert_eq!(authorize_command(&actor, target, false).is_ok(), uses);
                    assert_eq!(authorize_command(&actor, target, true).is_ok(), shell);
                }
            }
        }
    }
    assert_eq!(rows, 4 * 2 * 3 * 2 * 5);
}

#[test]
fn nobody_can_tell_anothers_vm_from_none() {
    for role in Role::ALL {
        let target = Target { vm: VmId::generate(), owner: None };
        for action in [
            Action::ViewVm(target),
            Action::ControlVm(target),
            Action::OwnVm(target),
            Action::SafeCommand(target),
            Action::UnsafeCommand(target),
        ] {
            assert_eq!(
                authorize(&actor(role, &Permission::ALL), action),
                Err(Denied::NotFound),
                "{action:?}"
            );
        }
    }
}

#[test]
fn what_is_of_the_host() {
    for role in Role::ALL {
        let actor = actor(role, &Permission::ALL);
        for action in [
            Action::ManageMedia,
            Action::OthersDomains,
            Action::UseBridge,
            Action::ViewUsers,
            Action::ChangeUsers,
            Action::ViewAudit,
        ] {
            assert_eq!(authorize(&actor, action).is_ok(), role == Role::Admin, "{role}: {action:?}");
        }
        assert_eq!(authorize(&actor, Action::ViewTelemetry).is_ok(), role != Role::Member, "{role}");
        assert_eq!(authorize(&actor, Action::CreateVm).is_ok(), role != Role::ReadOnly, "{role}");
        for action in
            [Action::ListVms, Action::ViewHost, Action::ViewImages, Action::OwnAccount, Action::IssueToken]
        {
            assert_eq!(authorize(&actor, action), Ok(()), "{role}: {action:?}");
        }
        let of = if role == Role::Member { Audience::Of(actor.user) } else { Audience::Everybody };
        assert_eq!(actor.audience(), of);
    }
}

/// The scope that each action wants, of somebody who may do all of them.
#[test]
fn a_token_is_good_for_its_scopes_only() {
    let mut admin = actor(Role::Admin, &Permission::ALL);
    let target = Target { vm: VmId::generate(), owner: Some(admin.user) };
    for (action, wants) in [
        (Action::ListVms, Scope::Read),
        (Action::ViewVm(target), Scope::Read),
        (Action::ViewHost, Scope::Read),
        (Action::ViewImages, Scope::Read),
        (Action::CreateVm, Scope::Control),
        (Action::ControlVm(target), Scope::Control),
        (Action::OwnVm(target), Scope::Control),
        (Action::SafeCommand(target), Scope::Control),
        (Action::ViewTelemetry, Scope::Telemetry),
        (Action::ManageMedia, Scope::Admin),
        (Action::OthersDomains, Scope::Admin),
        (Action::UseBridge, Scope::Admin),
        (Action::ViewUsers, Scope::Admin),
        (Action::ViewAudit, Scope::Admin),
    ] {
        for scope in Scope::ALL {
            admin.scopes = [scope].into();
            assert_eq!(authorize(&admin, action).is_ok(), scope == wants, "{scope}: {action:?}");
        }
    }
    admin.scopes = [Scope::Control].into();
    assert!(authorize(&admin, Action::UnsafeCommand(target)).is_err());
    admin.scopes = [Scope::Control, Scope::UnsafeCommands].into();
    assert_eq!(authorize(&admin, Action::UnsafeCommand(target)), Ok(()));
    assert!(!admin.is_admin());
    // No weak token makes itself a strong one.
    for missing in Scope::ALL {
        admin.scopes = Scope::ALL.into_iter().filter(|scope| *scope != missing).collect();
        for action in [Action::IssueToken, Action::OwnAccount, Action::ChangeUsers] {
            assert!(authorize(&admin, action).is_err(), "{action:?} without {missing}");
        }
    }
}

#[test]
fn words_are_read_as_they_are_written() {
    for role in Role::ALL {
        assert_eq!(role.word().parse(), Ok(role));
    }
    for scope in Scope::ALL {
        assert_eq!(scope.word().parse(), Ok(scope));
    }
    let told = "root".parse::<Role>().unwrap_err();
    assert_eq!(told, "\"root\" is not a role; there is: member, read_only, operator, admin");
}
