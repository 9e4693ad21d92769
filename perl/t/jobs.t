use Mojo::Base -strict;
use lib 't/lib';
use utf8;

use MinionServer;
use Test::More;

my $server = MinionServer->start;
my $minion = $server->minion;

$minion->add_task(add => sub { my ($job, $one, $two) = @_; $job->finish($one + $two) });
$minion->add_task(fail => sub { die "Intentional failure!\n" });
$minion->add_task(note => sub { my ($job, %notes) = @_; $job->note(%notes); $job->finish });

subtest 'A job is enqueued, performed and read' => sub {
  my $id = $minion->enqueue(add => [1, 2] => {priority => 5, notes => {from => 'テスト'}});
  my $info = $minion->job($id)->info;
  is_deeply $info->{args}, [1, 2], 'right arguments';
  is $info->{priority}, 5, 'right priority';
  is $info->{state}, 'inactive', 'right state';
  is_deeply $info->{notes}, {from => 'テスト'}, 'right notes';
  $minion->perform_jobs;
  $info = $minion->job($id)->info;
  is $info->{state},  'finished', 'right state';
  is $info->{result}, 3, 'right result';
  ok $info->{finished} >= $info->{created}, 'right times';
};

subtest 'Jobs that fail are retried while attempts are left' => sub {
  my $id = $minion->enqueue(fail => [] => {attempts => 2});
  $minion->perform_jobs;
  my $info = $minion->job($id)->info;
  is $info->{state},    'inactive', 'tried again later';
  is $info->{attempts}, 1, 'one attempt is left';
  is $info->{result},   "Intentional failure!\n", 'right result';
  ok $info->{delayed} > time, 'after the backoff';
  ok $minion->job($id)->retry({delay => 0}), 'retried at once';
  $minion->perform_jobs;
  is $minion->job($id)->info->{state}, 'failed', 'right state';
};

subtest 'Parents, notes and removal' => sub {
  my $parent = $minion->enqueue('note', [answer => 42]);
  my $child  = $minion->enqueue(add => [1, 1] => {parents => [$parent]});
  is_deeply $minion->job($child)->info->{parents},   [$parent], 'right parents';
  is_deeply $minion->job($parent)->info->{children}, [$child], 'right children';
  $minion->perform_jobs;
  is $minion->job($child)->info->{state}, 'finished', 'right state';
  is $minion->job($parent)->info->{notes}{answer}, 42, 'right note';
  ok $minion->job($parent)->note(answer => undef), 'note removed';
  ok !exists $minion->job($parent)->info->{notes}{answer}, 'no note';
  ok $minion->job($child)->remove, 'removed';
  ok !$minion->job($child), 'no job';
};

subtest 'Lists, statistics and history' => sub {
  my $list = $minion->backend->list_jobs(0, 10, {states => ['finished']});
  is $list->{total}, scalar @{$list->{jobs}}, 'right total';
  is $minion->stats->{failed_jobs}, 1, 'right number';
  is scalar @{$minion->history->{daily}}, 24, 'a day of hours';
};

subtest 'Locks' => sub {
  ok $minion->lock('one', 3600), 'locked';
  ok !$minion->lock('one', 3600), 'taken';
  ok $minion->unlock('one'), 'released';
  ok !$minion->unlock('one'), 'not held any more';
  ok $minion->lock('many', 3600, {limit => 2}) && $minion->lock('many', 3600, {limit => 2}), 'shared';
  ok !$minion->lock('many', 3600, {limit => 2}), 'limit reached';
};

subtest 'Schedules' => sub {
  plan skip_all => 'Minion 12 has schedules' unless $minion->can('schedule');
  ok $minion->schedule('nightly', '0 4 * * *', 'add', [1, 2]), 'made';
  my $found = $minion->backend->list_schedules(0, 10)->{schedules}[0];
  is $found->{cron}, '0 4 * * *', 'right rule';
  ok $minion->pause_schedule('nightly'),  'paused';
  ok $minion->resume_schedule('nightly'), 'resumed';
  ok $minion->unschedule('nightly'),      'removed';
};

done_testing;
