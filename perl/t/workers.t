use Mojo::Base -strict;
use lib 't/lib';

use MinionServer;
use Test::More;

my $server = MinionServer->start;
my $minion = $server->minion;
$minion->add_task(test => sub { });

my $worker = $minion->worker->register;
my $other  = $minion->worker->register;

subtest 'Workers are registered with their status' => sub {
  is $worker->info->{pid}, $$, 'right process id';
  $worker->status->{colour} = 'blue';
  is $worker->register->info->{status}{colour}, 'blue', 'right status';
  ok $minion->stats->{workers} >= 2, 'beside the worker of the server itself';
};

subtest 'A job is given to one worker' => sub {
  my $id  = $minion->enqueue('test');
  my $job = $worker->dequeue(0);
  is $job->id, $id, 'right job';
  is_deeply $worker->info->{jobs}, [$id], 'right jobs';
  ok !$other->dequeue(0), 'no job is left';
  ok $job->finish({ok => 1}), 'finished';
  ok !$job->finish, 'not twice';
  is_deeply $minion->job($id)->info->{result}, {ok => 1}, 'right result';
};

subtest 'Only jobs of known tasks and wanted queues are given' => sub {
  $minion->enqueue('unknown');
  my $id = $minion->enqueue(test => [] => {queue => 'other'});
  ok !$worker->dequeue(0), 'none';
  is $worker->dequeue(0, {queues => ['other']})->id, $id, 'right job';
};

subtest 'Remote commands' => sub {
  my @received;
  $worker->add_command(remember => sub { push @received, [@_[1 .. $#_]] });
  ok $minion->broadcast('remember', [1, {two => 2}], [$worker->id]), 'sent';
  $worker->process_commands;
  is_deeply \@received, [[1, {two => 2}]], 'received once';
  $worker->process_commands;
  is scalar @received, 1, 'not again';
};

subtest 'Jobs of a worker that is gone fail' => sub {
  my $id = $minion->enqueue('test');
  is $worker->dequeue(0)->id, $id, 'right job';
  $worker->unregister;
  $minion->repair;
  my $info = $minion->job($id)->info;
  is $info->{state},  'failed', 'right state';
  is $info->{result}, 'Worker went away', 'right result';
};

done_testing;
