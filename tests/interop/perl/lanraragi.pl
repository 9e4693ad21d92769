#!/usr/bin/env perl
use Mojo::Base -strict, -signatures;

# A worker with LANraragi's own tasks, until SIGINT: `lanraragi.pl MINION_PM ADDRESS`, where MINION_PM is the file
# lib/LANraragi/Utils/Minion.pm of LANraragi. The modules that it uses are stood in for by the packages below: they
# need Redis, libarchive and libvips.
BEGIN { $ENV{MOJO_REACTOR} = 'Mojo::Reactor::Poll' }

my %PAGES;
BEGIN { %PAGES = ('a' x 40 => 3, 'b' x 40 => 2) }

package MCE::Loop {
  use Exporter 'import';
  our @EXPORT = 'mce_loop';
  sub mce_loop : prototype(&@) ($code, $items) { $code->() for $items }
  sub finish ($class) { }
}

package MCE::Shared {
  sub array ($class) { bless [], $class }
  sub hash  ($class) { bless {}, $class }
  sub stop  ($class) { }
  sub push   ($self, @values) { CORE::push @$self, @values }
  sub values ($self) {@$self}
  sub get ($self, $key)         { $self->{$key} }
  sub set ($self, $key, $value) { $self->{$key} = $value }
}

package Stub::Logger { our $AUTOLOAD; sub AUTOLOAD { } }

package Stub::Redis {
  sub zrangebyscore ($self, $tank, @more) { $tank eq 'TANK_0000000001' ? 'a' x 40 : () }
  sub keys ($self, $pattern) { $pattern =~ /^TANK/ ? 'TANK_0000000001' : sort keys %PAGES }
  sub hget ($self, $id, $field) { $field eq 'pagecount' ? $PAGES{$id} : '0123456789abcdef' }
  sub hset ($self, @) { }
  sub hdel ($self, @) { }
  sub quit ($self)    { }
}

package LANraragi::Utils::Logging {
  use Exporter 'import';
  our @EXPORT_OK = 'get_logger';
  sub get_logger ($name, $file) { bless {}, 'Stub::Logger' }
}

package LANraragi::Utils::Redis {
  use Exporter 'import';
  our @EXPORT_OK = 'redis_decode';
  sub redis_decode ($text) {$text}
}

package LANraragi::Utils::Archive {
  use Exporter 'import';
  our @EXPORT_OK = 'extract_thumbnail';

  sub extract_thumbnail ($directory, $id, $page, $is_cover, $is_hq) {
    die "Requested image not found: $id page $page\n" unless $PAGES{$id} && $page <= $PAGES{$id};
    my $path = $is_cover ? "$directory/$id.jpg" : "$directory/$id-$page.jpg";
    open my $file, '>', $path or die "$path: $!\n";
    print {$file} 'thumbnail';
    return $path;
  }
}

package LANraragi::Utils::Plugins {
  use Exporter 'import';
  our @EXPORT_OK = qw(get_downloader_for_url get_plugin get_plugin_parameters use_plugin);
  sub get_downloader_for_url ($url) {undef}
  sub get_plugin ($name)            {undef}
  sub get_plugin_parameters ($name) { () }

  sub use_plugin ($name, $id, $argument) {
    return ({}, {error => 'Plugin not found on system.'}) unless $name eq 'comicinfo';
    return ({type => 'metadata'}, {new_tags => ' artist:someone, drama'});
  }
}

package LANraragi::Utils::String {
  use Exporter 'import';
  our @EXPORT_OK = 'trim_url';
  sub trim_url ($url) { $url =~ s{^https?://}{}r }
}

package LANraragi::Utils::TempFolder {
  use Exporter 'import';
  our @EXPORT_OK = 'get_temp';
  sub get_temp { $ENV{TMPDIR} // '/tmp' }
}

package LANraragi::Model::Upload {
  sub handle_incoming_file ($file, $category, @more) {
    return $file =~ /\.zip$/ ? (200, 'a' x 40, 'A title', '1 Plugins used.') : (415, 'deadbeef', $file, 'Unsupported');
  }
  sub download_url ($url, $agent) { $url =~ /missing/ ? die "No answer.\n" : '/tmp/downloaded.zip' }
}

package LANraragi::Model::Config {
  sub get_redis         { bless {}, 'Stub::Redis' }
  sub get_redis_config  { bless {}, 'Stub::Redis' }
  sub get_hqthumbpages  {0}
  sub get_jxlthumbpages {0}
  sub get_thumbdir      { $ENV{TMPDIR} // '/tmp' }
}

package LANraragi::Model::Stats {
  sub build_stat_hashes ($class) { }
  sub is_url_recorded ($url) { $url =~ /known/ ? 'a' x 40 : undef }
}

package LANraragi::Model::Backup {
  sub _note ($job, $status) {
    $job->note(
      categories_processed => 1, total_categories => 1, tankoubons_processed => 0, total_tankoubons => 0,
      archives_processed   => 2, total_archives   => 2, status               => $status
    );
  }
  sub build_backup_JSON ($job) { _note($job, 'Finalizing backup...'); '{"archives":[]}' }
  sub restore_from_JSON ($json, $job) { die "malformed\n" unless $json =~ /^\{/; _note($job, 'Finalizing restore...') }
}

package main;

use Minion;

BEGIN {
  $INC{s{::}{/}gr . '.pm'} = __FILE__ for map { "LANraragi::Utils::$_" } qw(Archive Logging Plugins Redis String TempFolder);
  $INC{s{::}{/}gr . '.pm'} = __FILE__ for map { "LANraragi::Model::$_" } qw(Backup Config Stats Upload);
  $INC{s{::}{/}gr . '.pm'} = __FILE__ for qw(MCE::Loop MCE::Shared);
}

my ($tasks, $address) = @ARGV;
require $tasks;
my $minion = Minion->new(Rest => $address);
LANraragi::Utils::Minion::add_tasks($minion);
my $worker = $minion->worker;
$worker->status->{dequeue_timeout} = 1;
$worker->run;
