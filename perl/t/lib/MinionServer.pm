package MinionServer;
use Mojo::Base -base;

use File::Spec;
use File::Temp qw(tempdir);
use Minion;
use Test::More;
use Time::HiRes qw(time usleep);

use constant KEY => 'the-key';

# A server of its own, with an empty queue, at a free port; it ends with the object
has [qw(directory pid url)];

sub minion { Minion->new(Rest => shift->url, KEY) }

sub start {
  my $class = shift;

  my $program = _program() or plan skip_all => 'no minion in PATH, and MINION_BIN is not set';
  my $directory = tempdir(CLEANUP => 1);
  my $output    = "$directory/output";
  defined(my $pid = fork) or die "fork: $!";
  unless ($pid) {
    open STDOUT, '>', $output       or die "$output: $!";
    open STDERR, '>', "$output.log" or die "$output.log: $!";
    local $ENV{MINION_API_KEY} = KEY;
    exec $program, 'serve', '--data-dir', "$directory/data", '--no-library', '--grpc-listen', '127.0.0.1:0',
      '--http-listen', '127.0.0.1:0'
      or die "$program: $!";
  }
  my $self = $class->new(directory => $directory, pid => $pid);

  my $deadline = time + 60;
  while (time < $deadline) {
    if (open my $file, '<', $output) {
      local $/;
      return $self->url($1) if (<$file> // '') =~ m{^REST: (http://\S+)\n}m;
    }
    usleep 20_000;
  }
  die 'the server has not started';
}

sub DESTROY {
  my $self = shift;
  return unless my $pid = $self->pid;
  local ($?, $!);
  kill TERM => $pid;
  waitpid $pid, 0;
}

sub _program {
  return $ENV{MINION_BIN} if $ENV{MINION_BIN};
  my ($found) = grep { -x && !-d } map { File::Spec->catfile($_, 'minion') } File::Spec->path;
  return $found;
}

1;
