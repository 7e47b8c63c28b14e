//! `quorate cluster`: which nodes the cluster consists of, staged, shown before it happens, and watched while it does.

mod apply;
mod history;
mod pace;
mod plan;
mod progress;
mod stage;
mod staged;

use clap::Subcommand;

use crate::failure::Failure;
use crate::output::Form;

/// Change which nodes the cluster consists of, and watch that happen
///
/// A change is staged (join, leave, replace, weight, place), looked at (plan), and applied; any number of them at once. Until it is
/// applied nothing moves, and it can be taken back (revert). While data moves everything goes on.
#[derive(clap::Args)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Join(stage::Join),
    Leave(stage::Leave),
    Replace(stage::Replace),
    Weight(stage::Weight),
    Place(stage::Place),
    Plan(plan::Plan),
    Apply(apply::Apply),
    Revert(stage::Revert),
    History(history::History),
    Progress(progress::Progress),
    Pause(pace::Pause),
    Resume(pace::Resume),
}

impl Cluster {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        match self.command {
            Command::Join(join) => join.run(form),
            Command::Leave(leave) => leave.run(form),
            Command::Replace(replace) => replace.run(form),
            Command::Weight(weight) => weight.run(form),
            Command::Place(place) => place.run(form),
            Command::Plan(plan) => plan.run(form),
            Command::Apply(apply) => apply.run(form),
            Command::Revert(revert) => revert.run(form),
            Command::History(history) => history.run(form),
            Command::Progress(progress) => progress.run(form),
            Command::Pause(pause) => pause.run(form),
            Command::Resume(resume) => resume.run(form),
        }
    }
}
