package MinionJudge;
use Mojo::Base -base, -signatures;

# The objects behind the backend that Minion's own tests use, for our REST API: the same
# as those of Mojo::Pg, as far as the tests use them, over the database of the server.
use Mojo::Util  qw(monkey_patch);
use Time::HiRes ();

# Minion->new(...) and plugin(Minion => {...})
sub backend { return (Rest => $ENV{MINION_REST_URL}) }

# $minion->backend->pg
sub pg {
  state $pg = $ENV{MINION_SQLITE} ? MinionJudge::Sqlite->new(path => $ENV{MINION_SQLITE}) : do {
    require Mojo::Pg;
    Mojo::Pg->new($ENV{TEST_ONLINE});
  };
  return $pg;
}

package MinionJudge::Sqlite;
use Mojo::Base -base, -signatures;

has 'path';
has dbh => sub ($self) {
  require DBI;
  my $dbh = DBI->connect('dbi:SQLite:dbname=' . $self->path, '', '', {RaiseError => 1, PrintError => 0});
  $dbh->sqlite_busy_timeout(5000);
  return $dbh;
};

sub db ($self) {$self}

sub query ($self, $sql, @binds) {
  my $now = Time::HiRes::time;
  $sql =~ s/\bminion_(jobs|locks|schedules|workers)\b/$1/g;
  $sql =~ s/EXTRACT\(EPOCH FROM (\w+)\)/$1/gi;
  $sql =~ s/TO_TIMESTAMP\(\?\)/?/gi;
  $sql =~ s/NOW\(\)/$now/gi;
  my %seconds = (second => 1, minute => 60, hour => 3600, day => 86400);
  $sql =~ s/INTERVAL '1 (\w+)'/$seconds{$1}/gi;

  # One connection per process: the tests fork
  my $statement = $self->dbh->prepare($sql);
  $statement->bind_param($_ + 1, $binds[$_], $binds[$_] =~ /^[\d.]+$/ ? DBI::SQL_REAL() : ()) for 0 .. $#binds;
  $statement->execute;
  return MinionJudge::Rows->new(rows => $sql =~ /^\s*SELECT/i ? $statement->fetchall_arrayref({}) : []);
}

sub select ($self, $table, $columns, $where) {
  my ($column) = keys %$where;
  return $self->query("SELECT $columns FROM $table WHERE $column = ?", $where->{$column});
}

package MinionJudge::Rows;
use Mojo::Base -base, -signatures;

has 'rows';

sub hash ($self) { $self->rows->[0] }

1;
