#!/usr/bin/env perl
use Mojo::Base -strict, -signatures;

BEGIN { $ENV{MOJO_REACTOR} = 'Mojo::Reactor::Poll' }

# A Perl Minion for tests in other languages: `minion.pl BACKEND ADDRESS work` is a worker, until SIGINT, and
# `minion.pl BACKEND ADDRESS` reads lines, each a JSON array of a verb and its arguments, and prints a line for
# each: a JSON array of the returned value, or of an error and its text.
use Minion;
use Mojo::JSON qw(decode_json encode_json);
use Time::HiRes qw(usleep);

my ($backend, $address, $what) = @ARGV;
my $minion = Minion->new($backend => $address);

# The tasks of the tests in Python
$minion->add_task(add  => sub ($job, $a, $b)  { $job->finish($a + $b) });
$minion->add_task(echo => sub ($job, @args) { $job->finish(\@args) });
$minion->add_task(
  append => sub ($job, $path, $text) {
    open my $trace, '>>', $path or die "$path: $!";
    $trace->autoflush(1);
    syswrite $trace, "$text\n";
  }
);
$minion->add_task(
  hold => sub ($job, $path) {
    $job->note(holding => \1);
    usleep 10_000 until -e $path;
    $job->finish('released');
  }
);
$minion->add_task(boom => sub ($job, $text) { die "$text\n" });

if (($what // '') eq 'work') {
  my $worker = $minion->worker;
  my $status = $worker->status;
  $status->{command_interval} = $status->{dequeue_timeout} = $status->{heartbeat_interval} = 1;
  $worker->run;
  exit;
}

STDOUT->autoflush(1);
while (my $line = <STDIN>) {
  my ($verb, @args) = @{decode_json($line)};
  my $on     = $minion->backend->can($verb) ? $minion->backend : $minion;
  my $result = eval { $on->$verb(@args) };
  say encode_json(my $error = $@ ? ['error', "$@"] : ['ok', ref $result eq 'Minion' ? undef : $result]);
}
