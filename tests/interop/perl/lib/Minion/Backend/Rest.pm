package Minion::Backend::Rest;
use Mojo::Base 'Minion::Backend';

use Carp qw(croak);
use Mojo::Date;
use Mojo::IOLoop;
use Mojo::JSON qw(false true);
use Mojo::URL;
use Mojo::UserAgent;
use Mojo::Util    qw(encode url_escape);
use Sys::Hostname qw(hostname);

# Limits of the server: entries of a page, and seconds of waiting for jobs
use constant {MAX_PAGE => 1000, MAX_WAIT => 300};

# Perl Minion's defaults: programs that keep them get the server's settings
use constant RETENTION => (missing_after => 1800, remove_after => 172800, stuck_after => 172800);

use constant SCHEDULE_OPTIONS => qw(attempts expire lax notes priority queue);

has [qw(key url)];
has ua => sub { Mojo::UserAgent->new(inactivity_timeout => MAX_WAIT + 30, request_timeout => 0) };

sub broadcast {
  my ($self, $command, $args, $ids) = (shift, shift, shift || [], shift || []);
  my @known = _ids($ids);
  return !!0 if @$ids && !@known;
  return !!$self->_post('workers:broadcast', {command => $command, args => $args, ids => \@known})->{accepted};
}

sub dequeue {
  my ($self, $id, $wait, $options) = @_;

  my $tasks  = $options->{tasks}  || [keys %{$self->minion->tasks}];
  my $queues = $options->{queues} || ['default'];
  return undef unless @$tasks && @$queues;

  my $body = {queues => $queues, tasks => $tasks};
  $body->{minPriority} = $options->{min_priority} if defined $options->{min_priority};
  $body->{jobId}       = "$options->{id}"         if defined $options->{id};
  $body->{wait}        = _span($wait > MAX_WAIT ? MAX_WAIT : $wait) unless Mojo::IOLoop->is_running;
  return undef unless my $res = $self->_post("workers/$id:dequeue", $body);
  return undef unless my $job = $res->{jobs}[0];
  return {args => $job->{args}, id => $job->{id} + 0, retries => $job->{retries}, task => $job->{task}};
}

sub dispatch_schedules {
  my $dispatched = shift->_post('schedules:dispatch', {})->{dispatched} // [];
  $_->{id} += 0, $_->{job} += 0 for @$dispatched;
  return $dispatched;
}

sub enqueue {
  my ($self, $task, $args, $options) = (shift, shift, shift || [], shift || {});
  return $self->_post('jobs', {task => $task, args => $args, _job_options($options)})->{id} + 0;
}

sub fail_job   { shift->_end('fail',   @_) }
sub finish_job { shift->_end('finish', @_) }

sub history {
  my $daily = shift->_get('history')->{daily};
  for my $hour (@$daily) {
    $hour = {epoch => $hour->{epoch} + 0, failed_jobs => $hour->{failedJobs} + 0,
      finished_jobs => $hour->{finishedJobs} + 0};
  }
  return {daily => $daily};
}

sub list_jobs      { shift->_list('jobs',      \&_job,      @_) }
sub list_locks     { shift->_list('locks',     \&_lock,     @_) }
sub list_schedules { shift->_list('schedules', \&_schedule, @_) }
sub list_workers   { shift->_list('workers',   \&_worker,   @_) }

sub lock {
  my ($self, $name, $duration, $options) = (shift, shift, shift, shift // {});
  my $body = {name => $name, duration => _span($duration), limit => $options->{limit} || 1};
  return !!$self->_post('locks:acquire', $body)->{acquired};
}

sub new {
  my ($class, $url, $key) = @_;
  return $class->SUPER::new(url => Mojo::URL->new($url), key => $key // $ENV{MINION_API_KEY} // '');
}

sub note {
  my ($self, $id, $merge) = @_;
  return _is_id($id) && !!$self->_call(PATCH => "jobs/$id/notes", json => {notes => $merge});
}

sub pause_schedule { !!shift->_post('schedules/' . _segment(shift) . ':pause', {})->{accepted} }

sub receive {
  my ($self, $id) = @_;
  return [map { [$_->{command}, @{$_->{args}}] } @{$self->_post("workers/$id:receive", {})->{commands} // []}];
}

sub register_worker {
  my ($self, $id, $options) = (shift, shift, shift || {});
  my $body = {host => $self->{host} //= hostname, pid => $$, status => $options->{status} // {}};
  $body->{id} = "$id" if defined $id;
  return $self->_post('workers', $body)->{id} + 0;
}

sub remove_job {
  my ($self, $id) = @_;
  return undef unless _is_id($id) && (my $res = $self->_call(DELETE => "jobs/$id"));
  return !!$res->{removed};
}

sub repair {
  my $self = shift;

  my ($minion, %usual) = ($self->minion, RETENTION);
  my %changed = map { $_ => _span($minion->$_) } grep { $minion->$_ != $usual{$_} } keys %usual;
  $self->_post('admin:repair', \%changed);
}

sub reset {
  my ($self, $options) = (shift, shift // {});
  if    ($options->{all})   { $self->_post('admin:reset', {all   => true}) }
  elsif ($options->{locks}) { $self->_post('admin:reset', {locks => true}) }
}

sub resume_schedule { !!shift->_post('schedules/' . _segment(shift) . ':resume', {})->{accepted} }

sub retry_job {
  my ($self, $id, $retries, $options) = (shift, shift, shift, shift || {});

  my $body = {retries => $retries, _job_options($options)};
  $body->{clearParents} = true if $options->{parents} && !@{$options->{parents}};
  return undef unless _is_id($id) && (my $res = $self->_post("jobs/$id:retry", $body));
  return !!$res->{accepted};
}

sub schedule {
  my ($self, $name, $cron, $task, $args, $options) = (shift, shift, shift, shift, shift || [], shift || {});
  my %known = map { $_ => $options->{$_} } grep { exists $options->{$_} } SCHEDULE_OPTIONS;
  my $body  = {name => $name, cron => $cron, task => $task, args => $args, _job_options(\%known)};
  return $self->_post('schedules', $body)->{id} + 0;
}

sub stats {
  my $stats = shift->_get('stats');
  return {map { _snake($_) => $_ eq 'uptime' ? _seconds($stats->{$_}) : $stats->{$_} + 0 } keys %$stats};
}

sub unlock { !!shift->_post('locks:release', {name => shift})->{released} }

sub unregister_worker {
  my ($self, $id) = @_;
  $self->_call(DELETE => "workers/$id") if _is_id($id);
}

sub unschedule { !!shift->_call(DELETE => 'schedules/' . _segment(shift))->{deleted} }

# Returns undef for NOT_FOUND, and dies of any other error
sub _call {
  my ($self, $method, $path, @content) = @_;

  my $url = $self->url->clone->path("/v1/$path");
  my $tx  = $self->ua->build_tx($method => $url => {Authorization => 'Bearer ' . $self->key} => @content);
  my $res = $self->ua->start($tx)->res;
  return $res->json if $res->is_success;
  return undef      if $res->code && $res->code == 404;

  my $error = $res->code ? $res->json : undef;
  croak "$method /v1/$path: " . ($tx->error // {})->{message} unless ref $error eq 'HASH';
  my ($violation) = map { $_->{fieldViolations} ? $_->{fieldViolations}[0] : () } @{$error->{details} // []};
  croak $violation ? "Invalid $violation->{field}: $violation->{description}" : $error->{message};
}

sub _end {
  my ($self, $how, $id, $retries, $result) = @_;
  my $body = {retries => $retries, result => $result};
  return undef unless _is_id($id) && (my $res = $self->_post("jobs/$id:$how", $body));
  return !!$res->{accepted};
}

sub _get { shift->_call(GET => shift, form => shift // {}) }

sub _list {
  my ($self, $what, $read, $offset, $limit, $options) = @_;

  my %query = map { $_ => $options->{$_} } grep { defined $options->{$_} } keys %{$options // {}};
  $query{ids} = [_ids($query{ids})] if $query{ids};

  # An empty list selects nothing in Perl, and everything on the server
  return {total => 0, $what => []} if grep { ref && !@$_ } values %query;
  return {total => 0, $what => []} if defined $query{before} && $query{before} < 1;

  my ($total, $token, @entries) = (0);
  while (@entries < $limit) {
    my $size = $limit - @entries;
    my $page = $self->_get($what,
      {%query, pageSize => $size > MAX_PAGE ? MAX_PAGE : $size, $token ? (pageToken => $token) : (skip => $offset)});
    $total = $page->{total} + 0;
    push @entries, map { $read->($_) } @{$page->{$what} // []};
    last unless $token = $page->{nextPageToken};
  }
  return {total => $total, $what => \@entries};
}

sub _post { shift->_call(POST => shift, json => shift) }

sub _epoch { defined $_[0] ? Mojo::Date->new($_[0])->epoch : undef }

sub _ids {
  map {"$_"} grep { _is_id($_) } @{$_[0]};
}

sub _is_id { ($_[0] // '') =~ /^[1-9]\d*$/ }

sub _job {
  my $job = shift;
  return {
    (map { $_ => $job->{$_} } qw(args attempts notes priority queue result retries state task)),
    (map { $_ => _epoch($job->{$_}) } qw(created delayed expires finished retried started time)),
    (
      map {
        $_ => [map { $_ + 0 } @{$job->{$_} // []}]
      } qw(children parents)
    ),
    id     => $job->{id} + 0,
    lax    => $job->{lax}            ? 1                  : 0,
    worker => defined $job->{worker} ? $job->{worker} + 0 : undef
  };
}

sub _job_options {
  my $options = shift;
  my %body    = map { $_ => $options->{$_} } grep { defined $options->{$_} } qw(attempts notes priority queue);
  $body{$_}      = _span($options->{$_}) for grep { defined $options->{$_} } qw(delay expire);
  $body{lax}     = $options->{lax} ? true : false      if exists $options->{lax};
  $body{parents} = [map {"$_"} @{$options->{parents}}] if $options->{parents};
  return %body;
}

sub _lock { {id => $_[0]{id} + 0, name => $_[0]{name}, expires => _epoch($_[0]{expires})} }

sub _schedule {
  my $schedule = shift;
  return {
    (map { $_ => $schedule->{$_} } qw(args attempts cron name notes priority queue task)),
    created  => _epoch($schedule->{created}),
    expire   => _seconds($schedule->{expire}),
    id       => $schedule->{id} + 0,
    last_job => defined $schedule->{lastJob} ? $schedule->{lastJob} + 0 : undef,
    last_run => _epoch($schedule->{lastRun}),
    lax      => $schedule->{lax} ? 1 : 0,
    next_run => _epoch($schedule->{nextRun}),
    paused   => $schedule->{paused} ? 1 : 0
  };
}

sub _seconds { defined $_[0] ? $_[0] =~ s/s$//r + 0 : undef }

sub _segment { url_escape encode('UTF-8', shift) }

sub _snake { $_[0] =~ s/([A-Z])/_\l$1/gr }

sub _span { sprintf('%.6f', shift // 0) =~ s/\.?0+$//r . 's' }

sub _worker {
  my $worker = shift;
  return {
    (map { $_ => $worker->{$_} } qw(host pid status)),
    id       => $worker->{id} + 0,
    jobs     => [map { $_ + 0 } @{$worker->{jobs} // []}],
    notified => _epoch($worker->{notified}),
    started  => _epoch($worker->{started})
  };
}

1;
