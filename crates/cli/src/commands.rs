//! One file for each thing that a person asks for.

mod create;
mod events;
mod exec;
mod follow;
mod generate;
mod login;
mod logs;
mod metrics;
mod power;
mod show;
mod snapshots;

use crate::{
    args::{Command, VmCommand},
    context::Context,
    failure::Failure,
};

/// Does it; gives the status to end with.
///
/// # Errors
/// What went wrong.
pub async fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        // It has something to do when it is interrupted.
        Command::Vm(VmCommand::Exec(args)) | Command::OfVm(VmCommand::Exec(args)) => {
            exec::exec(context, args).await
        }
        Command::Vm(command) | Command::OfVm(command) => {
            context.until_interrupted(of_vm(context, command)).await.map(|()| 0)
        }
        other => context.until_interrupted(other_than_vm(context, other)).await.map(|()| 0),
    }
}

async fn other_than_vm(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Login(args) => login::login(context, args).await,
        Command::Logout(args) => login::logout(context, args).await,
        Command::Whoami => login::whoami(context).await,
        Command::Generate { dir } => generate::generate(&dir),
        Command::Vm(command) | Command::OfVm(command) => of_vm(context, command).await,
    }
}

async fn of_vm(context: &Context, command: VmCommand) -> Result<(), Failure> {
    match command {
        VmCommand::List => show::list(context).await,
        VmCommand::Show(args) => show::show(context, &args.vm).await,
        VmCommand::Create(args) => create::create(context, *args).await,
        VmCommand::Start(args) => power::start(context, &args).await,
        VmCommand::Stop(args) => power::stop(context, &args).await,
        VmCommand::Reboot(args) => power::reboot(context, &args).await,
        VmCommand::Delete(args) => power::delete(context, &args).await,
        VmCommand::Exec(args) => exec::exec(context, args).await.map(|_| ()),
        VmCommand::Logs(args) => logs::logs(context, &args).await,
        VmCommand::Metrics(args) => metrics::metrics(context, &args).await,
        VmCommand::Events(args) => events::events(context, &args).await,
        VmCommand::Snapshots(command) => snapshots::snapshots(context, command).await,
    }
}
