use strict;
use warnings;
use Test::More;

use_ok 'Minion::Backend::Rest';
can_ok 'Minion::Backend::Rest', qw(
  broadcast dequeue dispatch_schedules enqueue fail_job finish_job history list_jobs list_locks list_schedules
  list_workers lock note pause_schedule receive register_worker remove_job repair reset resume_schedule retry_job
  schedule stats unlock unregister_worker unschedule
);
diag "Minion $Minion::VERSION, Perl $]" if require Minion;

done_testing;
