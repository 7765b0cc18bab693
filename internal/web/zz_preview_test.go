package web
import ("os";"testing";"net/http/httptest")
func TestZZPreview(t *testing.T){
 dir:=os.Getenv("PREVIEW"); if dir=="" {t.Skip()}
 for f,c:=range map[string]struct{n string;d any}{
  "recover":{"recover",recoverPage{}},
  "recover-err":{"recover",recoverPage{Email:"a very long address.without.at-sign.example.org",Error:"This is not an e-mail address. Write it like name@example.org."}},
  "recover-busy":{"recover",recoverPage{Email:"jan@example.org",Notice:"The server is busy. Please try again in a few seconds."}},
  "sent":{"sent",nil},
  "reset-link":{"reset",resetPage{UUID:"1b4e28ba-2fa1-41d2-883f-0016d3cca427",FromLink:true,MinLength:8}},
  "reset-hand":{"reset",resetPage{MinLength:8}},
  "reset-weak":{"reset",resetPage{UUID:"1b4e28ba-2fa1-41d2-883f-0016d3cca427",FromLink:true,PasswordError:"This password is used by many people. Choose another one.",MinLength:8}},
  "reset-both":{"reset",resetPage{UUID:"1b4e28ba-2fa1-41d2-883f-0016d3cca4",UUIDError:"The unique id is not complete. Copy it from the mail.",PasswordError:"Type a password.",MinLength:8}},
  "done":{"done",nil},"invalid":{"invalid",nil},"revoked":{"revoked",nil},
  "error":{"error",messagePage{"Too many tries","Please wait ten minutes, then try again.","recover","Try again"}},
 }{
  r:=httptest.NewRecorder(); renderPage(r,200,c.n,c.d)
  os.WriteFile(dir+"/"+f,r.Body.Bytes(),0o644)
 }
 os.WriteFile(dir+"/style.css",styleSheet,0o644)
}
